"""The distributed engine: the same chunk and bucket functions, run by Spark's workers.

Tasks and answers are small: what is large goes through files, so all workers must see one file system (``engine.staging`` and the data).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from reelrank.buckets import EngineOptions

T = TypeVar("T")
R = TypeVar("R")


def map_spark(
    function: Callable[[T], R], tasks: Iterable[T], options: EngineOptions
) -> Iterator[R]:
    """Apply a pure, picklable function to every task, one Spark task each, answers in order.

    Raises:
        ImportError: pyspark is not installed.
    """
    try:
        from pyspark.sql import SparkSession  # noqa: PLC0415 (an extra)
    except ImportError as error:
        raise ImportError("engine: spark needs pyspark: pip install 'reelrank[spark]', and Java 17 or 21") from error  # fmt: skip
    todo = list(tasks)
    if not todo:
        return
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # where workers have this package too
    builder = SparkSession.builder.appName("reelrank").master(options.spark.master)
    for key, value in options.spark.settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    yield from session.sparkContext.parallelize(todo, len(todo)).map(function).collect()
