"""One run of a system's pipeline in a process of its own: ``python -m reelrank.pipelines.experiments.cell ORDER.json``.

It holds a lock while it runs, so that a second call waits for the first, and it writes by itself that it has finished: what was
going on when its parent was killed is not lost.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypedDict

from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project

from reelrank.atomic import replace_file
from reelrank.children import locked


class Order(TypedDict):
    """What is to be run.

    ``lock`` and ``done`` are files; ``repeat``: run it although ``done`` is there; ``parameters``: its blocks, as runtime parameters.
    """

    project: str
    environment: str | None
    pipeline: str
    nodes: list[str]
    to_outputs: list[str]
    parameters: dict[str, Any]
    lock: str
    done: str
    repeat: bool


def main(path: str) -> None:
    """Run one order, unless it was carried out while we waited for its lock."""
    order: Order = json.loads(Path(path).read_text(encoding="utf-8"))
    done = Path(order["done"])
    with locked(Path(order["lock"])):
        if done.exists() and not order["repeat"]:
            return
        begun = time.monotonic()
        project = Path(order["project"])
        bootstrap_project(project)
        session: Any = KedroSession.create(
            project, env=order["environment"], runtime_params=order["parameters"]
        )
        with session:
            session.run(
                pipeline_names=[order["pipeline"]],
                node_names=order["nodes"] or None,
                to_outputs=order["to_outputs"] or None,
            )
        write_done(done, time.monotonic() - begun)


def write_done(done: Path, seconds: float) -> None:
    """Write down when a run ended and how long it took, and how long the longest so far: the others found their inputs fresh."""
    try:
        longest = float(json.loads(done.read_text(encoding="utf-8"))["longest"])
    except (OSError, ValueError, KeyError):
        longest = 0.0
    left = {
        "seconds": round(seconds, 1),
        "longest": round(max(seconds, longest), 1),
        "finished": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }
    with replace_file(done) as temporary:
        temporary.write_text(json.dumps(left) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
