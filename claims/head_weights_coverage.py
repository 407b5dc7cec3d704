"""Are planted head weights recovered, and do their intervals hold? Small problems with the true head probabilities, drawn again and again.

    python claims/head_weights_coverage.py [--repetitions 200]

Each repetition draws users, candidates, head probabilities and rankings anew (softmax of w·p̂/T without replacement), fits weights and temperature
with the smooth loss, and resamples users. The share of the 95 % percentile intervals that hold the planted weight must lie, for
every weight, within the binomial 99 % bounds of exact intervals. Prints one JSON line last; the exit status is 1 where a claim fails.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from reelrank.pipelines.head_weights.embeddings import Embedding, l2_normalised
from reelrank.pipelines.head_weights.inference import infer_soft
from reelrank.pipelines.head_weights.matching import cosine, matching
from reelrank.pipelines.head_weights.options import InferenceOptions, SearchOptions, SoftOptions
from reelrank.pipelines.head_weights.problem import RankingSessions
from reelrank.pipelines.head_weights.search import fit_soft, search

Doubles = npt.NDArray[np.float64]
PLANTED = (0.30, 0.20, -0.10, -0.40)


@dataclass(frozen=True)
class OracleProblem:
    """A planted problem: the same for every repetition but for what is drawn.

    Attributes:
        sessions: S.
        users: whom sessions belong to, evenly drawn.
        candidates: per session.
        shown: K, of each session.
        items: catalogue.
        width: of the items' vectors.
        weights: planted, on the L1 sphere.
        temperature: planted, in sd of the score within sessions.
        correlation: of the first two heads on the logit scale.
    """

    sessions: int = 300
    users: int = 100
    candidates: int = 20
    shown: int = 5
    items: int = 400
    width: int = 8
    weights: tuple[float, float, float, float] = PLANTED
    temperature: float = 0.5
    correlation: float = 0.5


@dataclass(frozen=True)
class Coverage:
    """What repetitions say.

    Attributes:
        n: repetitions.
        cosines: (n,) of the smooth fit with the planted weights.
        hard_cosines: (n,) of the hard loss's, NaN where it was not fitted.
        coverage: (4,) share of the intervals that hold the planted weight.
        bounds: binomial 99 % bounds of an exact interval's share.
        identified: share of the repetitions whose verdict is "identified".
        bias: (4,) mean error of the weights.
        sd: (4,) of the weights over repetitions.
        temperature_ratio: mean T̂/T.
        seconds: for all.
    """

    n: int
    cosines: Doubles
    hard_cosines: Doubles
    coverage: Doubles
    bounds: tuple[float, float]
    identified: float
    bias: Doubles
    sd: Doubles
    temperature_ratio: float
    seconds: float

    @property
    def holds(self) -> bool:
        """Every weight's coverage is within the bounds."""
        return bool(((self.coverage >= self.bounds[0]) & (self.coverage <= self.bounds[1])).all())


def draw(problem: OracleProblem, seed: int) -> tuple[RankingSessions, Embedding, float]:
    """One repetition's sessions, item vectors (which carry the items' part of the heads, with noise), and T."""
    p = problem
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(p.items, 4))
    vectors = latent @ rng.normal(size=(4, p.width)) + 0.5 * rng.normal(size=(p.items, p.width))
    item = rng.permuted(np.tile(np.arange(p.items), (p.sessions, 1)), axis=1)[:, : p.candidates]
    logit = latent[item] + 0.7 * rng.normal(size=(*item.shape, 4))
    own = np.sqrt(1 - p.correlation**2)
    logit[..., 1] = p.correlation * logit[..., 0] + own * logit[..., 1]
    heads = 1 / (1 + np.exp(0.5 - logit))
    score = heads @ np.array(p.weights)
    t = p.temperature * float(np.sqrt(score.var(axis=1).mean()))
    # the largest of score/T + Gumbel, in order, are successive softmax draws
    order = np.argsort(-(score / t + rng.gumbel(size=score.shape)), axis=1)[:, : p.shown]
    rank = np.zeros(item.shape, np.int32)
    np.put_along_axis(rank, order, np.arange(1, p.shown + 1, dtype=np.int32)[None], axis=1)
    n = p.sessions
    sessions = RankingSessions(
        user_id=rng.integers(p.users, size=n).astype(np.int32),
        session_id=np.arange(n),
        ts_start=np.zeros(n, np.int64),
        burst_id=np.zeros(n, np.int16),
        first=np.arange(n + 1) * p.candidates,
        item_id=item.ravel().astype(np.int32),
        heads=heads.reshape(-1, 4).astype(np.float32),
        rank_shown=rank.ravel(),
    )
    return sessions, l2_normalised(vectors), t


def repeat(
    problem: OracleProblem,
    repetitions: int = 200,
    seed: int = 0,
    *,
    refit: Literal["full", "one_step"] = "one_step",
    hard: bool = False,
) -> Coverage:
    """Draw, fit and resample again and again.

    Args:
        problem: what is planted.
        repetitions: at least 200 for a claim.
        seed: of the first; the others count on.
        refit: of the bootstrap.
        hard: also fit the hard loss, by Nelder–Mead from the smooth fit.
    """
    started = time.perf_counter()
    planted = np.array(problem.weights)
    soft, inference = SoftOptions(), InferenceOptions(refit=refit)
    estimates, held, cosines, hard_cosines = [], [], [], []
    identified, ratio = 0, 0.0
    for k in range(repetitions):
        sessions, embedding, t = draw(problem, seed + k)
        layout = matching(sessions, embedding)
        fit = fit_soft(layout, soft)
        found = infer_soft(layout, fit, inference, soft)
        estimates.append(fit.weights)
        held.append((found.ci[:, 0] <= planted) & (planted <= found.ci[:, 1]))
        cosines.append(float(cosine(fit.weights, planted)))
        identified += found.identified
        ratio += fit.temperature / t / repetitions
        if hard:
            best = search(layout, SearchOptions(method="nelder_mead"))
            hard_cosines.append(float(cosine(best.weights, planted)))
    return Coverage(
        repetitions,
        np.array(cosines),
        np.array(hard_cosines if hard else [np.nan] * repetitions),
        np.mean(held, axis=0),
        coverage_bounds(repetitions),
        identified / repetitions,
        np.mean(estimates, axis=0) - planted,
        np.std(estimates, axis=0, ddof=1),
        ratio,
        time.perf_counter() - started,
    )


def coverage_bounds(n: int, share: float = 0.95, level: float = 0.99) -> tuple[float, float]:
    """Shares of n repetitions between which the coverage of exact intervals lies with that probability."""
    tail = (1 - level) / 2
    return float(binom.ppf(tail, n, share)) / n, float(binom.ppf(1 - tail, n, share)) / n


def main() -> None:
    """Run the claim and print what came out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=OracleProblem.temperature)
    parser.add_argument("--refit", choices=("one_step", "full"), default="one_step")
    given = parser.parse_args()
    problem = OracleProblem(temperature=given.temperature)
    out = repeat(problem, given.repetitions, given.seed, refit=given.refit, hard=True)
    line = {
        "name": "head_weights_coverage",
        "repetitions": out.n,
        "refit": given.refit,
        "temperature": given.temperature,
        "coverage": out.coverage.tolist(),
        "bounds": out.bounds,
        "cosine_min": float(out.cosines.min()),
        "cosine_median": float(np.median(out.cosines)),
        "hard_cosine_median": float(np.median(out.hard_cosines)),
        "identified": out.identified,
        "bias_in_sd": (out.bias / out.sd).tolist(),
        "temperature_ratio": out.temperature_ratio,
        "seconds": round(out.seconds, 1),
        "holds": out.holds,
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.exit(not out.holds)


if __name__ == "__main__":
    main()
