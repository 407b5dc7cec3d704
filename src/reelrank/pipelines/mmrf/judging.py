"""What policies of a feed are judged by, from its tensors.

Source: METHODS §4.8, §7.2.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from reelrank.models.feed import WATCH_TIME, FeedInputs
from reelrank.models.feed_data import trained_decisions
from reelrank.pipelines.mmrf.evaluate import Judge
from reelrank.pipelines.mmrf.logged import CATEGORY, LoggedPart, history_value, logged_part
from reelrank.pipelines.mmrf.run_options import EvaluationOptions
from reelrank.pipelines.mmrf.scoring import TEST, VAL


def judge_of(
    inputs: FeedInputs,
    propensities: pl.DataFrame,
    expected: Callable[[LoggedPart], npt.NDArray[np.float32]] | None,
    k: int,
    options: EvaluationOptions,
) -> Judge:
    """What policies of this feed are judged by.

    Args:
        inputs: the log, on the CPU.
        propensities: of :func:`logging_propensities`.
        expected: planted responses of a part's candidates; None on real rows.
        k: places of a list.
        options: caps and resamples.

    Raises:
        ValueError: the test part shows no rows under the logging policy.
    """
    val, test = (logged_part(inputs, split) for split in (VAL, TEST))
    if not len(test.of_row):
        raise ValueError(
            "the test split shows no rows under the logging policy: a longer log is needed"
        )
    known = propensities["decision"].to_numpy()
    behaviour = tuple(
        propensities["probabilities"].gather(np.searchsorted(known, part.decision)).to_numpy()
        for part in (val, test)
    )
    decisions = inputs.decisions
    train = trained_decisions(decisions)
    shown = decisions.shown[train]
    watch = decisions.response[train][shown][:, WATCH_TIME].double().numpy()
    user = decisions.user[train].repeat_interleave(shown.sum(1)).numpy()
    is_known = ~np.isnan(watch)
    popularity = np.bincount(
        decisions.candidates[train][shown].numpy(), minlength=len(inputs.items.codes)
    )
    category = inputs.items.codes[:, inputs.items.fields.index(CATEGORY)].numpy() - 1
    return Judge(
        val=val,
        test=test,
        random=logged_part(inputs, TEST, is_random=True),
        behaviour=(behaviour[0], behaviour[1]),
        value=history_value(inputs, test),
        train_watch=(user[is_known], watch[is_known]),
        truth=None if expected is None else expected(test),
        popularity=popularity.astype(np.int64),
        category=category,
        k=k,
        options=options,
    )
