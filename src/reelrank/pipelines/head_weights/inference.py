"""How sure one may be of head weights: user bootstrap, profiles, collinearity, and the verdict.

Intervals for coverage claims are percentile intervals of the smooth fit over resamples of users, every resample minimised anew (``full``); the
hard loss's, by Nelder–Mead on cached losses by user, stand beside them as descriptive: a hard top-K knows no noise.

A weight is *identified* if its variance inflation among the heads, within sessions, is at most ``max_vif`` and its interval is no wider
than ``max_width``. The vector is if, besides, the condition index of the heads is at most ``max_condition_index``, the 5 % quantile of the cosine
between resamples and estimate is at least ``min_cosine``, and a cluster-robust Wald test rejects β = 0 at ``max_p_flat``.
Where it is not, numbers are not to be shown.

Source: METHODS §6.6, Inference and Noise [S]; the rule is ours [D].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelrank.evaluation.uncertainty import QUANTILES, UserBootstrap
from reelrank.pipelines.head_weights.matching import N_HEADS, Matching, cosine, on_sphere
from reelrank.pipelines.head_weights.options import InferenceOptions, SearchOptions, SoftOptions
from reelrank.pipelines.head_weights.search import SoftFit, levenberg, nelder_mead

Doubles = npt.NDArray[np.float64]

HEADS = ("complete", "long", "rewatch", "neg")
SIMPLEX = 0.03  # first width of a refit's simplex
POOL_SPREADS = (0.01, 0.03, 0.1, 0.3)  # sd in u of the pool's directions around ŵ
N_ANGLES = N_HEADS - 1
LARGEST_VIF = 1e12


@dataclass(frozen=True)
class Collinearity:
    """What the heads share within sessions.

    Attributes:
        correlation: (4, 4); NaN for a head that does not vary.
        vif: (4,) variance inflation 1/(1 − R²_j); huge for a head that does not vary.
        condition_number: largest over smallest eigenvalue of the correlation.
        condition_index: its square root.
    """

    correlation: Doubles
    vif: Doubles
    condition_number: float
    condition_index: float


@dataclass(frozen=True)
class WeightInference:
    """Weights with intervals, and what they are worth.

    Attributes:
        weights: (4,) ŵ on the L1 sphere.
        temperature: T̂, NaN for the hard loss.
        replicates: (B, 4) refits on resamples of users, on the L1 sphere.
        temperatures: (B,) T of the refits, NaN for the hard loss.
        ci: (4, 2) 95 % percentile intervals.
        sign_frequency: (4,) share of the refits with ŵ's sign.
        cosine_low: 5 % quantile of cos(ŵ_b, ŵ).
        p_flat: of the Wald test of β = 0, NaN for the hard loss.
        collinearity: of the heads.
        weight_identified: (4,) by the rule.
        identified: the vector is, by the rule.
        reasons: why not, in words; empty if it is.
    """

    weights: Doubles
    temperature: float
    replicates: Doubles
    temperatures: Doubles
    ci: Doubles
    sign_frequency: Doubles
    cosine_low: float
    p_flat: float
    collinearity: Collinearity
    weight_identified: npt.NDArray[np.bool_]
    identified: bool
    reasons: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """One sentence for the report."""
        if self.identified:
            return "identified"
        return "not identified: " + "; ".join(self.reasons)


@dataclass(frozen=True)
class Profiles:
    """Loss around ŵ, on a common subsample of sessions.

    Attributes:
        angles: (3, P) angles of a direction, in rad.
        losses: (3, P) smallest loss with that angle held.
        at: (3,) angles of ŵ.
        landscape_angles: (2, G) grid of the first two angles.
        landscape: (G, G) hard loss, the third angle as in ŵ; first index = first angle.
        rise_z: (3, 2) rise of the loss at either end of a profile over its paired user-clustered standard error; small = flat.
    """

    angles: Doubles
    losses: Doubles
    at: Doubles
    landscape_angles: Doubles
    landscape: Doubles
    rise_z: Doubles


def infer_soft(
    problem: Matching, fit: SoftFit, options: InferenceOptions, soft: SoftOptions
) -> WeightInference:
    """Intervals and verdict for the smooth fit.

    Losses, gradients and curvatures of users are kept: a resample weights them anew, and one Newton step goes most of the way.

    Args:
        problem: the sessions that ``fit`` was made on.
        fit: minimum of the smooth loss.
        options: resamples and rule.
        soft: tolerances of the refits.
    """
    bootstrap = UserBootstrap(problem.users, options.replicates, options.seed)
    counts = bootstrap.counts.astype(np.float64)
    terms = problem.soft(fit.beta)
    gradient, curvature = problem.by_user(terms.gradient), problem.by_user(terms.curvature)
    steps = _newton_steps(counts @ gradient, np.tensordot(counts, curvature, 1))
    betas = fit.beta + steps
    if options.refit == "full":
        covariance = problem.head_covariance()
        for b, count in enumerate(counts):
            betas[b] = _refit(problem, count, fit.beta, betas[b], covariance, soft)
    bread = np.linalg.pinv(curvature.sum(axis=0))
    robust = bread @ (gradient.T @ gradient) @ bread
    flat = float(fit.beta @ np.linalg.pinv(robust, hermitian=True) @ fit.beta)
    return _infer(problem, fit.weights, fit.temperature, betas, _chi2_tail(flat), options)


def infer_hard(
    problem: Matching, weights: npt.ArrayLike, options: InferenceOptions, search: SearchOptions
) -> WeightInference:
    """Intervals and verdict for the hard loss: Nelder–Mead from the best of a pool around ŵ in each resample.

    Losses by user are kept for the pool and for every point that a refit asks for, so that resamples share them.

    Args:
        problem: the sessions that ``weights`` were fitted on.
        weights: (4,) ŵ.
        options: resamples, pool and rule.
        search: tolerances of Nelder–Mead.
    """
    w = on_sphere(weights)
    bootstrap = UserBootstrap(problem.users, options.replicates, options.seed)
    counts = bootstrap.counts.astype(np.float64)
    rows = counts @ np.bincount(problem.user_index, minlength=len(problem.users))
    rng = np.random.default_rng(options.seed)
    spread = np.resize(POOL_SPREADS, options.pool)[:, None]
    pool = np.vstack([w, on_sphere(w + spread * rng.normal(size=(options.pool, N_HEADS)))])
    pooled = counts @ problem.user_losses(pool).T / rows[:, None]
    known: dict[bytes, Doubles] = {}

    def user_losses(u: Doubles) -> Doubles:
        key = u.astype(np.float32).tobytes()
        if key not in known:
            known[key] = problem.user_losses(u)[0]
        return known[key]

    refits = np.empty((options.replicates, N_HEADS))
    for b in range(options.replicates):

        def resampled(u: Doubles, b: int = b) -> Doubles:
            return np.array([counts[b] @ user_losses(u[0]) / rows[b]])

        refits[b] = pool[pooled[b].argmin()]
        if options.polish_steps:
            refits[b], _ = nelder_mead(
                resampled,
                refits[b],
                on_sphere,
                search,
                step=SIMPLEX,
                max_steps=options.polish_steps,
            )
    return _infer(problem, w, np.nan, refits, np.nan, options)


def collinearity(problem: Matching) -> Collinearity:
    """Correlation of the heads within sessions, and what it does to their weights."""
    covariance = problem.head_covariance()
    sd = np.sqrt(np.diag(covariance).clip(min=0))
    scale = sd.max(initial=0)
    constant = sd <= 1e-9 * max(scale, 1e-300)
    safe = np.where(constant, 1.0, sd)
    correlation = covariance / np.outer(safe, safe)
    correlation[constant] = correlation[:, constant] = 0
    values, axes = np.linalg.eigh(correlation)
    floored = values.clip(min=1 / LARGEST_VIF)
    vif = (axes**2 / floored).sum(axis=1).clip(max=LARGEST_VIF)
    number = float(floored[-1] / floored[0])
    correlation[constant] = correlation[:, constant] = np.nan
    return Collinearity(correlation, vif, number, float(np.sqrt(number)))


def angles_of(weights: npt.ArrayLike) -> Doubles:
    """The three angles of a direction: two in [0, π], the last in (−π, π]."""
    u = np.asarray(weights, np.float64)
    rest = np.sqrt(np.cumsum(u[::-1] ** 2)[::-1])
    return np.array([np.arctan2(rest[1], u[0]), np.arctan2(rest[2], u[1]), np.arctan2(u[3], u[2])])


def direction_of(angles: npt.ArrayLike) -> Doubles:
    """Weights on the L1 sphere with these angles (…, 3) → (…, 4)."""
    a = np.asarray(angles, np.float64)
    sin, cos = np.sin(a), np.cos(a)
    s01 = sin[..., 0] * sin[..., 1]
    return on_sphere(
        np.stack(
            [cos[..., 0], sin[..., 0] * cos[..., 1], s01 * cos[..., 2], s01 * sin[..., 2]], axis=-1
        )
    )


def profiles(
    problem: Matching, weights: npt.ArrayLike, options: InferenceOptions, search: SearchOptions
) -> Profiles:
    """Profiles of the hard loss along each angle, and its landscape over the first two.

    Args:
        problem: the sessions; a common subsample is used.
        weights: (4,) ŵ.
        options: grids and subsample.
        search: tolerances of the search over the other angles.
    """
    sample = problem.sample(options.profile_sessions, options.seed)
    at = angles_of(weights)
    grids = np.stack([_grid(at[j], j, options.angles) for j in range(N_ANGLES)])
    losses, points = np.empty_like(grids), np.empty((N_ANGLES, options.angles, N_HEADS))
    centre = options.angles // 2
    for j in range(N_ANGLES):
        for side in (range(centre, options.angles), range(centre - 1, -1, -1)):
            free = np.delete(at, j)  # each side is followed outwards from ŵ
            for k in side:
                free, losses[j, k] = _held(sample, j, grids[j, k], free, search)
                points[j, k] = direction_of(np.insert(free, j, grids[j, k]))
    sides = np.stack([_grid(at[j], j, options.landscape) for j in range(2)])
    first, second = np.meshgrid(*sides, indexing="ij")
    mesh = np.stack([first, second, np.full_like(first, at[2])], axis=-1)
    landscape = sample.mean_losses(direction_of(mesh.reshape(-1, N_ANGLES)))
    ends = points[:, [0, -1]].reshape(-1, N_HEADS)
    rise_z = _rises(sample, ends, direction_of(at)).reshape(N_ANGLES, 2)
    return Profiles(grids, losses, at, sides, landscape.reshape(first.shape), rise_z)


def _infer(
    problem: Matching,
    weights: Doubles,
    temperature: float,
    betas: Doubles,
    p_flat: float,
    options: InferenceOptions,
) -> WeightInference:
    replicates = on_sphere(betas)
    ci = np.quantile(replicates, QUANTILES, axis=0).T
    cosine_low = float(np.quantile(cosine(replicates, weights), 0.05))
    shared = collinearity(problem)
    within = shared.vif <= options.max_vif
    narrow = ci[:, 1] - ci[:, 0] <= options.max_width
    reasons = [
        f"{HEADS[j]} is a combination of the other heads (variance inflation {shared.vif[j]:.3g})"
        for j in np.flatnonzero(~within)
    ]
    reasons += [
        f"the interval of {HEADS[j]} is {ci[j, 1] - ci[j, 0]:.2f} wide"
        for j in np.flatnonzero(~narrow)
    ]
    if shared.condition_index > options.max_condition_index:
        reasons.append(f"condition index of the heads {shared.condition_index:.3g}")
    if not cosine_low >= options.min_cosine:
        reasons.append(f"5 % of the resamples have a cosine below {cosine_low:.2f} to the estimate")
    if p_flat > options.max_p_flat:
        reasons.append(
            f"the order of what is shown does not depend on the heads (p = {p_flat:.2f})"
        )
    hard = np.isnan(temperature)
    return WeightInference(
        weights,
        temperature,
        replicates,
        np.full(len(betas), np.nan) if hard else 1 / np.abs(betas).sum(axis=1),
        ci,
        np.mean(np.sign(replicates) == np.sign(weights), axis=0),
        cosine_low,
        p_flat,
        shared,
        within & narrow,
        not reasons,
        tuple(reasons),
    )


def _newton_steps(gradient: Doubles, curvature: Doubles) -> Doubles:
    """−H⁻¹g for B resamples; a singular curvature sends its resample far away, which widens intervals as it should."""
    size = np.trace(curvature, axis1=1, axis2=2)[:, None, None]
    steps: Doubles = -np.linalg.solve(
        curvature + 1e-12 * (size + 1e-300) * np.eye(N_HEADS), gradient[..., None]
    )[..., 0]
    return steps


def _refit(
    problem: Matching,
    count: Doubles,
    beta: Doubles,
    stepped: Doubles,
    covariance: Doubles,
    soft: SoftOptions,
) -> Doubles:
    """Minimum of the smooth loss in one resample, from one Newton step, or from β̂ where that step made it worse."""
    weight = count[problem.user_index]
    weight = weight / weight.sum()

    def terms(b: Doubles) -> tuple[float, Doubles, Doubles]:
        t = problem.soft(b)
        return float(weight @ t.loss), weight @ t.gradient, np.tensordot(weight, t.curvature, 1)

    start = stepped if terms(stepped)[0] <= terms(beta)[0] else beta
    return levenberg(terms, start, covariance, soft)[0]


def _chi2_tail(statistic: float) -> float:
    from scipy.special import gammaincc  # noqa: PLC0415

    return float(gammaincc(N_HEADS / 2, max(statistic, 0.0) / 2))


def _grid(at: float, angle: int, n: int) -> Doubles:
    """Angles around ŵ's, in the middle of the grid: the whole circle for the last angle, [0, π] for the others."""
    low, high = (at - np.pi, at + np.pi) if angle == N_ANGLES - 1 else (0.0, np.pi)
    half = n // 2
    return np.concatenate(
        [np.linspace(low, at, half, endpoint=False), np.linspace(at, high, n - half)]
    )


def _held(
    sample: Matching, angle: int, value: float, free: Doubles, search: SearchOptions
) -> tuple[Doubles, float]:
    """Smallest hard loss with one angle held, from the other two."""

    def weights(x: Doubles) -> Doubles:
        inside = np.insert(x, angle, value)
        inside[:2] = inside[:2].clip(0, np.pi)  # beyond, another value of the held angle is meant
        return direction_of(inside)

    found, _ = nelder_mead(sample.mean_losses, free, weights, search, step=0.1, max_steps=25)
    return found, float(sample.mean_losses(weights(found))[0])


def _rises(sample: Matching, ends: Doubles, centre: Doubles) -> Doubles:
    """(M,) rise of the loss from ŵ in user-clustered standard errors, paired by user."""
    difference = sample.user_losses(ends) - sample.user_losses(centre)
    total = difference.sum(axis=1)
    sessions = np.bincount(sample.user_index, minlength=len(sample.users))
    residual = difference - total[:, None] / sessions.sum() * sessions
    return np.asarray(total / np.sqrt(np.square(residual).sum(axis=1)).clip(min=1e-300))
