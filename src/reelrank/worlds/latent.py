"""Latent users, videos, social graph and modalities that every planted-truth world is built from.

Source: METHODS §8.2, last paragraph (synthetic generator). Each purpose draws from a stream of its own, so that a change to
one (say, the noise of one modality) leaves every other draw as it was.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.sparse import csr_array

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


class Items(NamedTuple):
    """Topic of each item, int32 (V,), and its unit topic vector, float32 (V, d)."""

    topic: Ints
    vector: Floats


class Interests(NamedTuple):
    """Interest rotating in a plane: θ(t) = cos(ωt)·start + sin(ωt)·turn, unit length at any t (days).

    ``start`` and ``turn`` are float32 (U, d), orthonormal per user; ``speed`` is ω, float32 (U,), radians per day.
    """

    start: Floats
    turn: Floats
    speed: Floats


class SocialGraph(NamedTuple):
    """Directed edges follower → followed, int32 (E,) each, without repeats, ordered by (src, dst)."""

    src: Ints
    dst: Ints


def stream(seed: int, purpose: str) -> np.random.Generator:
    """The random stream of one purpose: independent of every other purpose's under the same seed."""
    return np.random.default_rng([seed, *purpose.encode()])


def unit(vectors: NDArray[np.floating]) -> Floats:
    """Rows scaled to length 1."""
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def draw_topics(rng: np.random.Generator, n_topics: int, dim: int) -> Floats:
    """Random unit centres, (K, d)."""
    return unit(rng.standard_normal((n_topics, dim)))


def draw_items(rng: np.random.Generator, n_items: int, topics: Floats, spread: float) -> Items:
    """Items scattered around the topic centres; topic k has share ∝ 1/√(k+1), so that some are common."""
    n_topics, dim = topics.shape
    share = 1 / np.sqrt(np.arange(1, n_topics + 1))
    topic = rng.choice(n_topics, n_items, p=share / share.sum()).astype(np.int32)
    noise = rng.standard_normal((n_items, dim)) * (spread / np.sqrt(dim))
    return Items(topic, unit(topics[topic] + noise))


def draw_interests(rng: np.random.Generator, n_users: int, topics: Floats) -> Floats:
    """One interest per user: a favourite topic, a second one and a private part, (U, d) unit rows."""
    n_topics, dim = topics.shape
    first, second = rng.integers(0, n_topics, (2, n_users))
    weight = rng.uniform(0.2, 0.8, (n_users, 1))
    private = rng.standard_normal((n_users, dim)) * (0.4 / np.sqrt(dim))
    return unit(topics[first] + weight * topics[second] + private)


def draw_social_graph(
    rng: np.random.Generator, interests: Floats, mean_degree: float, homophily: float
) -> SocialGraph:
    """Follow edges towards users of like interest.

    Each edge looks at 8 users drawn uniformly and follows one with P ∝ exp(homophily · cosine of the interests).
    """
    n_users = len(interests)
    degree = rng.poisson(mean_degree * rng.gamma(2.0, 0.5, n_users))
    src = np.repeat(np.arange(n_users), degree)
    seen = rng.integers(0, n_users, (len(src), 8))
    cosine = _cosines(interests, src, seen)
    chosen = np.argmax(homophily * cosine + rng.gumbel(size=seen.shape), axis=1)
    dst = seen[np.arange(len(src)), chosen]
    keys = np.sort(src[src != dst] * n_users + dst[src != dst])
    keys = keys[np.diff(keys, prepend=-1) > 0]  # np.unique hashes first, ten times slower here
    return SocialGraph((keys // n_users).astype(np.int32), (keys % n_users).astype(np.int32))


@njit(cache=True, nogil=True, fastmath=True)
def _cosines(vectors: Floats, own: NDArray[np.int64], others: NDArray[np.int64]) -> Floats:
    """⟨v_own, v_other⟩ of unit vectors for own (n,) and others (n, k), (n, k)."""
    out = np.empty(others.shape, np.float32)
    for i in range(len(own)):
        for j in range(others.shape[1]):
            total = np.float32(0.0)
            for k in range(vectors.shape[1]):
                total += vectors[own[i], k] * vectors[others[i, j], k]
            out[i, j] = total
    return out


def smooth_over_graph(vectors: Floats, graph: SocialGraph, weight: float) -> Floats:
    """Each user's vector plus ``weight`` times the mean of those followed, at unit length again."""
    n = len(vectors)
    follows = csr_array((np.ones(len(graph.src), np.float32), (graph.src, graph.dst)), (n, n))
    total = follows @ vectors
    count = np.bincount(graph.src, minlength=len(vectors))[:, None]
    return unit(vectors + weight * total / np.maximum(count, 1))


def rotating_interests(
    rng: np.random.Generator, start: Floats, towards: Floats, drift: float
) -> Interests:
    """Interests that turn from ``start`` towards ``towards`` at a speed of mean ``drift`` radians per day."""
    along = np.sum(start * towards, axis=1, keepdims=True)
    turn = unit(towards - along * start)
    speed = drift * rng.gamma(4.0, 0.25, len(start))
    return Interests(start, turn, speed.astype(np.float32))


def modal_sequences(
    rng: np.random.Generator,
    vectors: Floats,
    *,
    tokens: int,
    dim: int,
    snr_db: float,
    missing_rate: float,
) -> tuple[Floats, NDArray[np.bool_]]:
    """The topic vectors as one modality shows them: a random two-layer network per modality, plus private noise.

    Every value has unit variance: √(ρ/(1+ρ))·signal + √(1/(1+ρ))·noise with ρ = 10^(SNR/10). Half of the noise power
    is shared by the tokens of an item, so that pooling over tokens does not remove it.

    Returns:
        Sequences (V, T, D) float32 and whether each item has the modality, (V,) bool.
    """
    n_items, width = vectors.shape
    hidden = 2 * width
    inner = rng.standard_normal((width, hidden)) * 1.5
    shift = (
        rng.standard_normal((tokens, 1, hidden)) * 0.5
    )  # tokens see the topic from different sides
    outer = rng.standard_normal((hidden, dim)) / np.sqrt(hidden)
    weights = (array.astype(np.float32) for array in (inner, shift, outer))
    signal = _two_layers(vectors, *weights)  # (T, V, D)
    signal = (signal - signal.mean(1, keepdims=True)) / (signal.std(1, keepdims=True) + 1e-9)
    shared = rng.standard_normal((1, n_items, dim), dtype=np.float32)
    private = rng.standard_normal((tokens, n_items, dim), dtype=np.float32)
    ratio = 10.0 ** (snr_db / 10)
    of_signal, of_noise = np.sqrt([ratio / (1 + ratio), 0.5 / (1 + ratio)], dtype=np.float32)
    mixed = of_signal * signal + of_noise * (shared + private)
    present = np.asarray(rng.random(n_items) >= missing_rate)
    return np.ascontiguousarray(mixed.transpose(1, 0, 2), dtype=np.float32), present


def _two_layers(vectors: Floats, inner: Floats, shift: Floats, outer: Floats) -> Floats:
    return np.asarray(np.tanh(vectors @ inner + shift) @ outer)
