"""RU-06: does Q order what follows, and is p what it says?

Source: METHODS §5.7, §9 RU-06.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
import torch
from scipy.stats import rankdata

from reelrank.evaluation.calibration import brier, ece, reliability_table
from reelrank.evaluation.results import ResultRow
from reelrank.evaluation.uncertainty import UserBootstrap
from reelrank.models.sequence_data import Sequences, histories_before
from reelrank.pipelines.ruie.fitting import SequenceTables, restore
from reelrank.pipelines.ruie.model import N_NETWORKS, RUIE
from reelrank.pipelines.ruie.run_options import OBSERVED, PREDICTED
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.options import DeviceName

BLOCK = 4096


def realised_returns(log: Sequences, weights: Sequence[float], gamma: float) -> torch.Tensor:
    """Σ_k γ^k r of each event and the user's later ones, (N,): what Q promises if the log is followed to its end."""
    reward = log.behaviour.double() @ torch.tensor(
        weights, dtype=torch.float64, device=log.user.device
    )
    place = torch.arange(len(log), device=log.user.device)
    after = log.first[1:][log.user] - 1 - place  # events of the user that follow
    total, share = reward.clone(), 1.0
    for k in range(1, int(after.max()) + 1):
        share *= gamma
        if share < 1e-9:
            break
        later = (place + k).clamp_max(len(log) - 1)
        total += share * reward[later] * (after >= k)
    return total


@torch.no_grad()
def q_frame(
    checkpoint: ModelCheckpoint, tables: SequenceTables, device: DeviceName
) -> pl.DataFrame:
    """Mean Q and p of both networks before each event that has a history.

    Returns:
        row_id, user_id, split, scenario (code, that followed), q (of it), p_0 … p_S−1, realised (return from this event on).
    """
    log = tables.sequences(device)
    model = restore(checkpoint, log.user.device)
    if not isinstance(model, RUIE):
        raise TypeError(f"{checkpoint.config['name']} has no Q: only ruie has")
    o = model.options
    place = torch.arange(len(log), device=log.user.device)
    place = place[place > log.first[log.user]]
    qs, ps = [], []
    for part in torch.split(place, BLOCK):
        history = histories_before(log, part, model.spec.length)
        last = (history.length - 1)[:, None, None].expand(-1, 1, log.n_scenarios)
        states = [model.network(k).state(history) for k in range(N_NETWORKS)]
        qs.append(torch.stack([s.q.gather(1, last).squeeze(1) for s in states]).mean(0))
        ps.append(torch.stack([s.log_p.exp().gather(1, last).squeeze(1) for s in states]).mean(0))
    q, p = torch.cat(qs), torch.cat(ps)
    taken = q.gather(1, log.scenario[place][:, None]).squeeze(1)
    realised = realised_returns(log, o.reward.weights(), o.q.gamma)[place]
    own = tables.events[place.cpu().numpy()].select("row_id", "user_id", "split", "scenario")
    return own.with_columns(
        q=pl.Series(taken.double().cpu().numpy()),
        realised=pl.Series(realised.cpu().numpy()),
        **{f"p_{c}": pl.Series(p[:, c].double().cpu().numpy()) for c in range(log.n_scenarios)},
    )


def q_rows(
    variant: str, frame: pl.DataFrame, labels: Sequence[str], bootstrap: UserBootstrap
) -> list[ResultRow]:
    """Spearman's ρ of Q and the realised return, and ECE, Brier score and reliability of p: over all events and by scenario.

    p of a scenario is judged on every event, whatever followed; ρ by scenario on the events of that scenario. Reliability is
    mean p and the scenario's rate in bins of equal mass, groups “search, bin 1” and so on.
    """
    rows = []
    users = frame["user_id"].to_numpy()
    groups = {"all": np.ones(frame.height, bool)}
    groups |= {label: (frame["scenario"] == code).to_numpy() for code, label in enumerate(labels)}
    for group, mask in groups.items():
        own = frame.filter(mask)
        if own["q"].n_unique() > 1 and own["realised"].n_unique() > 1:
            ranks = (rankdata(own[name].to_numpy()) for name in ("q", "realised"))
            estimate = bootstrap.correlation(users[mask], *ranks)
            rows.append(
                ResultRow.from_estimate(variant, "spearman_q_return", estimate, group=group)
            )
    for code, label in enumerate(labels):
        happened, p = (frame["scenario"] == code).to_numpy().astype(float), frame[f"p_{code}"]
        values = {"ece_p": ece(happened, p), "brier_p": brier(happened, p)}
        rows += [
            ResultRow(variant, name, v, frame.height, group=label) for name, v in values.items()
        ]
        for number, bin_ in enumerate(reliability_table(happened, p).iter_rows(named=True), 1):
            group = f"{label}, bin {number}"
            rows += [
                ResultRow(variant, PREDICTED, bin_["predicted"], bin_["n"], group=group),
                ResultRow(variant, OBSERVED, bin_["observed"], bin_["n"], group=group),
            ]
    return rows
