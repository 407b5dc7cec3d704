"""The hard loss on 5,000 sessions × 2,000 candidates against a NumPy loop with ``argpartition``, and a whole estimation.

    python benchmarks/head_weights.py [--sessions 5000] [--candidates 2000] [--rounds 5] [--no-estimation]

Both sides score in float32 with the same order of sums, take the K_s highest (of equal scores the earlier) and average the same vectors;
`agrees` says that the losses of all sessions are the same to 1e-5, every one of them. Ours runs on as many threads as there are cores, the
loop on one: NumPy has no more for it. Ours `batched` is the time per weight vector when 16 are asked for at once, as CMA-ES does.
The estimation is what the pipeline does: directions, CMA-ES, Nelder–Mead, smooth fit, 200 refits of either loss; the limit is 15 minutes.
"""

import argparse
import json
import os
import resource
import statistics
import time

import numpy as np
import numpy.typing as npt

from reelrank.pipelines.head_weights.embeddings import l2_normalised
from reelrank.pipelines.head_weights.inference import infer_hard, infer_soft
from reelrank.pipelines.head_weights.matching import Matching, cosine, matching, on_sphere
from reelrank.pipelines.head_weights.options import InferenceOptions, SearchOptions, SoftOptions
from reelrank.pipelines.head_weights.problem import RankingSessions
from reelrank.pipelines.head_weights.search import fit_soft, search

ITEMS, WIDTH = 10_728, 64
PLANTED = np.array([0.22, 0.10, -0.02, -0.66], np.float32)
NOISE = 0.5  # T in sd of the score


def draw(n_sessions: int, n_candidates: int) -> tuple[RankingSessions, npt.NDArray[np.float32]]:
    """Sessions as long as KuaiRec's (mean 22), ranked by the poster's weights with noise; heads of users and items."""
    rng = np.random.default_rng(3)
    latent = rng.normal(size=(ITEMS, 4)).astype(np.float32)
    vectors = latent @ rng.normal(size=(4, WIDTH)) + rng.normal(size=(ITEMS, WIDTH))
    shown = np.clip(rng.geometric(1 / 18, n_sessions) + 4, 5, n_candidates // 2)
    heads = np.empty((n_sessions, n_candidates, 4), np.float32)
    item = np.empty((n_sessions, n_candidates), np.int32)
    rank = np.zeros((n_sessions, n_candidates), np.int32)
    for s, k in enumerate(shown):
        item[s] = np.sort(rng.choice(ITEMS, n_candidates, replace=False))
        logit = latent[item[s]] + 0.7 * rng.standard_normal((n_candidates, 4), np.float32)
        heads[s] = 1 / (1 + np.exp(1 - logit))
        score = heads[s] @ PLANTED
        order = np.argsort(-(score / (NOISE * score.std()) + rng.gumbel(size=n_candidates)))[:k]
        rank[s, order] = np.arange(1, k + 1)
    sessions = RankingSessions(
        user_id=rng.integers(1_500, size=n_sessions).astype(np.int32),
        session_id=np.arange(n_sessions),
        ts_start=np.zeros(n_sessions, np.int64),
        burst_id=np.zeros(n_sessions, np.int16),
        first=np.arange(n_sessions + 1) * n_candidates,
        item_id=item.ravel(),
        heads=heads.reshape(-1, 4),
        rank_shown=rank.ravel(),
    )
    return sessions, vectors.astype(np.float32)


def peer(problem: Matching, w: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Losses of all sessions, one session after the other."""
    first, vectors, heads = problem.sessions.first, problem.embedding, problem.heads
    losses = np.empty(problem.n_sessions, np.float32)
    for s in range(problem.n_sessions):
        a, b, k = first[s], first[s + 1], problem.n_shown[s]
        h = heads[:, a:b]
        score = w[0] * h[0]  # four rows: as fast as a product with BLAS, and rounded as ours
        score += w[1] * h[1]
        score += w[2] * h[2]
        score += w[3] * h[3]
        top = np.argpartition(score, b - a - k)[b - a - k :]
        lowest = score[top[0]]
        if np.count_nonzero(score == lowest) > np.count_nonzero(score[top] == lowest):
            top = np.argsort(-score, kind="stable")[:k]
        gap = problem.observed[s] - vectors[problem.row[a + top]].mean(axis=0)
        losses[s] = gap @ gap
    return losses


def estimation(problem: Matching) -> dict[str, object]:
    """Seconds of each part of a whole estimation, and how near it comes to the planted weights."""
    options, soft, inference = SearchOptions(), SoftOptions(), InferenceOptions()
    clock = [time.perf_counter()]
    hard = search(problem, options)
    clock.append(time.perf_counter())
    fit = fit_soft(problem, soft, hard.weights)
    clock.append(time.perf_counter())
    smooth = infer_soft(problem, fit, inference, soft)
    clock.append(time.perf_counter())
    infer_hard(problem, hard.weights, inference, options)
    clock.append(time.perf_counter())
    names = ("search", "soft_fit", "soft_refits", "hard_refits")
    seconds = dict(zip(names, np.diff(clock).round(1).tolist(), strict=True))
    print(f"estimation: {seconds}, hard {hard.weights.round(3)}, soft {fit.weights.round(3)}")
    return {
        "estimation_s": round(clock[-1] - clock[0], 1),
        "estimation_parts_s": seconds,
        "evaluations_in_search": hard.n_evaluations,
        "refits": inference.replicates,
        "cosine_hard": float(cosine(hard.weights, PLANTED)),
        "cosine_soft": float(cosine(fit.weights, PLANTED)),
        "identified": smooth.identified,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=5_000)
    parser.add_argument("--candidates", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-estimation", action="store_true")
    given = parser.parse_args()
    sessions, vectors = draw(given.sessions, given.candidates)
    problem = matching(sessions, l2_normalised(vectors))
    weights = on_sphere(np.random.default_rng(0).normal(size=(16, 4))).astype(np.float32)
    problem.subset([0]).losses(weights)  # compiled
    seconds, batched, peer_seconds, agrees = [], [], [], []
    for k in range(given.rounds):
        started = time.perf_counter()
        ours = problem.losses(weights[k])
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        theirs = peer(problem, weights[k])
        peer_seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        problem.losses(weights)
        batched.append((time.perf_counter() - started) / len(weights))
        agrees.append(np.allclose(ours, theirs, rtol=1e-5, atol=1e-7))
        print(
            f"round {k}: ours {seconds[-1] * 1e3:.1f} ms, batched {batched[-1] * 1e3:.1f} ms, peer {peer_seconds[-1] * 1e3:.0f} ms"
        )
    line = {
        "name": "head_weights",
        "ours": statistics.median(seconds) * 1e3,
        "peer": statistics.median(peer_seconds) * 1e3,
        "ratio": statistics.median(p / o for o, p in zip(seconds, peer_seconds, strict=True)),
        "unit": "ms",
        "agrees": all(agrees),
        "batched": statistics.median(batched) * 1e3,
        "ratio_batched": statistics.median(
            p / o for o, p in zip(batched, peer_seconds, strict=True)
        ),
        "sessions": given.sessions,
        "candidates": given.candidates,
        "width": WIDTH,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    if not given.no_estimation:
        line |= estimation(problem)
    line["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(line))


if __name__ == "__main__":
    main()
