"""A ranking model as the policy of :func:`~reelrank.evaluation.off_policy.estimate_policy_value`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from reelrank.evaluation.off_policy.estimators import FloatArray
from reelrank.evaluation.off_policy.log import candidate_lists

if TYPE_CHECKING:
    from reelrank.models.inputs import ModelInputs
    from reelrank.models.policy import Policy


def policy_probabilities(
    policy: Policy, inputs: ModelInputs, temperature: float, *, rows_at_once: int = 1024
) -> Callable[[pl.DataFrame], FloatArray]:
    """A function of the log that asks the model for π_e of every candidate.

    Args:
        policy: the model, in evaluation mode.
        inputs: what it reads, on its device.
        temperature: of the softmax over its scores, see
            :func:`~reelrank.evaluation.off_policy.softening.equal_entropy_temperature`.
        rows_at_once: lists of a batch.

    Returns:
        log → (n, C). The log needs user_id, ts_ms (UTC epoch ms) and candidates, ids as in ``inputs``, and as many
        candidates in every row.
    """

    def probabilities(log: pl.DataFrame) -> FloatArray:
        import torch  # noqa: PLC0415 (estimates need no torch)

        lists = candidate_lists(log)
        lengths = lists.list.len().unique()
        if len(lengths) != 1 or lengths.null_count():
            raise ValueError("a ranking model needs as many candidates in every row of the log")
        ids = lists.explode(empty_as_null=False).to_numpy().reshape(len(log), -1)
        items = torch.from_numpy(ids.copy()).to(inputs.device)
        users, ts = (
            torch.from_numpy(log[name].to_numpy().astype(np.int64)).to(inputs.device)
            for name in ("user_id", "ts_ms")
        )
        with torch.no_grad():
            parts = [
                policy.probabilities(inputs, users[k], items[k], ts[k], temperature).cpu()
                for k in (slice(i, i + rows_at_once) for i in range(0, len(log), rows_at_once))
            ]
        return torch.cat(parts).numpy().astype(np.float64)

    return probabilities
