"""Weights with the smallest loss: directions, CMA-ES and a polish for the hard loss, Levenberg–Marquardt for the smooth one.

The hard loss is piecewise constant, so that its searches use no derivatives. The report of the poster names BFGS, its code runs
Nelder–Mead [A]: on this loss a gradient is zero.

Source: METHODS §6.6, Optimisers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reelrank.pipelines.head_weights.matching import (
    N_HEADS,
    Inclusion,
    Matching,
    half_space,
    on_sphere,
)
from reelrank.pipelines.head_weights.options import SearchOptions, SoftOptions

Doubles = npt.NDArray[np.float64]
Losses = Callable[[Doubles], Doubles]  # (M, 4) weights → (M,) losses
Terms = Callable[[Doubles], tuple[float, Doubles, Doubles]]  # β → loss, gradient, curvature

EQUAL = np.array([1.0, 1.0, 1.0, -1.0]) / 4  # the last head is the negative one
GROWTH, SHRINK = 10.0, 0.2  # of Levenberg's damping
LARGEST_DAMPING = 1e8
BETAS = (0.9, 0.999)  # Adam's


@dataclass(frozen=True)
class SearchResult:
    """The best weights of a search.

    Attributes:
        weights: (4,) on the L1 sphere.
        loss: hard L on all sessions.
        n_evaluations: of the loss, on all sessions or a subsample.
        stages: best loss after each stage, on the sessions that the stage used.
    """

    weights: Doubles
    loss: float
    n_evaluations: int
    stages: dict[str, float]


@dataclass(frozen=True)
class SoftFit:
    """Weights and temperature that minimise the smooth loss.

    Attributes:
        weights: (4,) on the L1 sphere.
        temperature: T of scores w·p̂; softmax(w·p̂ / T).
        beta: (4,) w/T.
        loss: smooth L.
        hard_loss: hard L at these weights.
        converged: false: the steps ran out, or T stands at its bound.
    """

    weights: Doubles
    temperature: float
    beta: Doubles
    loss: float
    hard_loss: float
    converged: bool


def directions(n: int, seed: int) -> Doubles:
    """Quasi-random directions on the L1 sphere (n, 4): scrambled Sobol points through the normal quantile."""
    from scipy.stats import norm, qmc  # noqa: PLC0415 (scipy.stats is slow to import)

    points = qmc.Sobol(N_HEADS, seed=seed).random_base2(int(np.ceil(np.log2(n))))[:n]
    return on_sphere(norm.ppf(points.clip(1e-9, 1 - 1e-9)))


def search(problem: Matching, options: SearchOptions) -> SearchResult:
    """Minimise the hard loss by the method of the options.

    Args:
        problem: sessions to fit, validation ones (L9).
        options: method and sizes.
    """
    if options.method == "soft_topk":
        return _anneal(problem, options)
    sample = problem.sample(options.sessions, options.seed)
    if options.method in {"tpe", "cmaes_sampler"}:
        return _optuna(problem, sample, options)
    to_weights, width, start = _parametrisation(options)
    if options.method == "nelder_mead":
        u, count = nelder_mead(problem.mean_losses, start, to_weights, options)
        w = to_weights(u)
        loss = float(problem.mean_losses(w)[0])
        return SearchResult(w, loss, count, {"nelder_mead": loss})
    tried = directions(options.directions, options.seed)
    if width < N_HEADS:  # the half space holds w or −w, not both
        tried = tried[tried @ np.sign(EQUAL) > 0]
    losses = sample.mean_losses(tried)
    order = np.argsort(losses, kind="stable")[: options.starts]
    stages, count = {"directions": float(losses[order[0]])}, len(tried)
    best_w, best_loss = tried[order[0]], losses[order[0]]
    for k, w in enumerate(tried[order]):
        u = w if width == N_HEADS else w[:3] / (w @ np.sign(EQUAL))
        found, loss, n = _cma(sample.mean_losses, u, to_weights, options, options.seed + k)
        count += n
        if loss < best_loss:
            best_w, best_loss = found, loss
    stages["cma"] = float(best_loss)
    u = best_w if width == N_HEADS else best_w[:3] / (best_w @ np.sign(EQUAL))
    polished, n = nelder_mead(problem.mean_losses, u, to_weights, options)
    ends = np.stack([best_w, to_weights(polished)])
    final = problem.mean_losses(ends)
    stages["nelder_mead"] = float(final.min())
    return SearchResult(ends[final.argmin()], float(final.min()), count + n + 2, stages)


def nelder_mead(
    losses: Losses,
    start: Doubles,
    to_weights: Callable[[Doubles], Doubles],
    options: SearchOptions,
    *,
    step: float = 0.05,
    max_steps: int | None = None,
) -> tuple[Doubles, int]:
    """SciPy's simplex search from ``start``, whose first simplex is ``step`` wide.

    Returns:
        the best point, and the number of evaluations.
    """
    from scipy.optimize import minimize  # noqa: PLC0415 (slow to import)

    simplex = np.vstack([start, start + step * np.eye(len(start))])
    found = minimize(
        lambda u: float(losses(np.atleast_2d(to_weights(u)))[0]),
        start,
        method="Nelder-Mead",
        options={
            "xatol": options.xatol,
            "fatol": options.fatol,
            "initial_simplex": simplex,
            "maxiter": max_steps,
        },
    )
    return np.asarray(found.x), int(found.nfev)


def fit_soft(
    problem: Matching, options: SoftOptions, candidates: npt.ArrayLike | None = None
) -> SoftFit:
    """Weights and temperature by the smooth ``successive`` loss.

    Args:
        problem: sessions to fit.
        options: start points and tolerances.
        candidates: (M, 4) directions to start from, such as the hard loss's best; equal signed weights, each head and 32 quasi-random ones
            are tried besides.
    """
    given = np.empty((0, N_HEADS)) if candidates is None else np.atleast_2d(candidates)
    fixed = np.vstack([given, EQUAL[None], np.eye(N_HEADS), -np.eye(N_HEADS)])
    tried = np.vstack([on_sphere(fixed), directions(32, 0)])
    covariance = problem.head_covariance()
    sd = np.sqrt(np.einsum("mi,ij,mj->m", tried, covariance, tried))
    usable = sd > 0
    unit = tried[usable] / sd[usable, None]
    sample = problem.sample(options.sessions, 0)
    starts = np.vstack([unit / t for t in options.first_temperatures])
    losses = [float(sample.soft(b).loss.mean()) for b in starts]
    order = np.argsort(losses, kind="stable")[: options.starts]
    terms = mean_terms(sample)
    fits = [levenberg(terms, starts[k], covariance, options) for k in order]
    beta, loss, converged = min(fits, key=lambda fit: fit[1])
    if sample is not problem:
        beta, loss, converged = levenberg(mean_terms(problem), beta, covariance, options)
    return soft_fit(problem, beta, loss, converged)


def soft_fit(problem: Matching, beta: Doubles, loss: float, converged: bool) -> SoftFit:
    """Weights and temperature of β. Arguments as the fields of :class:`SoftFit`."""
    norm = float(np.abs(beta).sum())
    weights = beta / norm if norm > 0 else np.full(N_HEADS, np.nan)
    temperature = 1 / norm if norm > 0 else np.inf
    hard = float(problem.losses(weights).mean()) if norm > 0 else np.nan
    return SoftFit(weights, temperature, beta, loss, hard, converged)


def mean_terms(problem: Matching, inclusion: Inclusion = "successive") -> Terms:
    """Smooth L with its derivatives as a function of β."""

    def terms(beta: Doubles) -> tuple[float, Doubles, Doubles]:
        t = problem.soft(beta, inclusion)
        return float(t.loss.mean()), t.gradient.mean(axis=0), t.curvature.mean(axis=0)

    return terms


def levenberg(
    terms: Terms, start: Doubles, covariance: Doubles, options: SoftOptions
) -> tuple[Doubles, float, bool]:
    """Levenberg–Marquardt on β from ``start``.

    Args:
        terms: loss, gradient and curvature.
        start: (4,).
        covariance: (4, 4) of the heads: β'Cβ = 1/T² in sd of the score bounds T below.
        options: steps, tolerance and bound.

    Returns:
        β, loss, and whether it converged inside the bound.
    """
    beta, damping = start, 1e-4
    loss, gradient, curvature = terms(beta)
    for _ in range(options.max_steps):
        scale = np.diag(np.diag(curvature) + 1e-12 * np.trace(curvature) + 1e-300)
        step = -np.linalg.solve(curvature + damping * scale, gradient)
        trial = beta + step
        sharpness = np.sqrt(trial @ covariance @ trial) * options.lowest_temperature
        trial = trial / max(sharpness, 1.0)
        step = trial - beta
        expected = -float(gradient @ step + 0.5 * step @ curvature @ step)
        if expected < options.tolerance * loss:
            return beta, loss, bool(sharpness <= 1)
        new = terms(trial)
        if new[0] < loss:
            beta, (loss, gradient, curvature) = trial, new
            damping *= SHRINK
        else:
            damping *= GROWTH
            if damping > LARGEST_DAMPING:
                return beta, loss, False
    return beta, loss, False


def _parametrisation(
    options: SearchOptions,
) -> tuple[Callable[[Doubles], Doubles], int, Doubles]:
    """Map to weights, number of parameters, and the author's start of equal weights [A]."""
    if options.sphere == "half":
        return half_space, N_HEADS - 1, EQUAL[:3] * 1.0
    return on_sphere, N_HEADS, EQUAL


def _cma(
    losses: Losses,
    start: Doubles,
    to_weights: Callable[[Doubles], Doubles],
    options: SearchOptions,
    seed: int,
) -> tuple[Doubles, float, int]:
    """CMA-ES from one start: best weights, their loss, evaluations."""
    from cmaes import CMA  # noqa: PLC0415

    optimiser = CMA(mean=start, sigma=options.sigma, population_size=options.population, seed=seed)
    best, best_loss, count = to_weights(start), np.inf, 0
    for _ in range(options.generations):
        points = np.stack([optimiser.ask() for _ in range(options.population)])
        weights = to_weights(points)
        values = losses(weights)
        count += len(values)
        optimiser.tell(list(zip(points, values.tolist(), strict=True)))
        k = int(values.argmin())
        if values[k] < best_loss:
            best, best_loss = weights[k], float(values[k])
        if optimiser.should_stop():
            break
    return best, best_loss, count


def _optuna(problem: Matching, sample: Matching, options: SearchOptions) -> SearchResult:
    """Optuna's TPE or CMA-ES sampler over u in [−1, 1]⁴ (or x in [−2, 2]³ for the half space)."""
    import optuna  # noqa: PLC0415 (slow to import)

    to_weights, width, start = _parametrisation(options)
    bound = 1.0 if width == N_HEADS else 2.0
    samplers = optuna.samplers
    sampler = (
        samplers.TPESampler(seed=options.seed, multivariate=True)
        if options.method == "tpe"
        else samplers.CmaEsSampler(seed=options.seed)
    )
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(sampler=sampler)
        study.enqueue_trial({f"u{j}": float(v) for j, v in enumerate(start)})

        def objective(trial: optuna.Trial) -> float:
            u = np.array([trial.suggest_float(f"u{j}", -bound, bound) for j in range(width)])
            return float(sample.mean_losses(to_weights(u))[0])

        study.optimize(objective, n_trials=options.trials)
    finally:
        optuna.logging.set_verbosity(level)
    u = np.array([study.best_params[f"u{j}"] for j in range(width)])
    w = to_weights(u)
    loss = float(problem.mean_losses(w)[0])
    return SearchResult(w, loss, options.trials + 1, {options.method: float(study.best_value)})


def _anneal(problem: Matching, options: SearchOptions) -> SearchResult:
    """Adam on the sigmoid relaxation while T falls, then the hard loss [S].

    The step is taken in u with scores of unit sd, w = u/‖u‖₁, so that T means the same throughout.
    """
    sample = problem.sample(options.sessions, options.seed)
    covariance = sample.head_covariance()
    tried = directions(64, options.seed)
    u = tried[sample.mean_losses(tried).argmin()]
    first, last = options.temperatures
    m, v = np.zeros(N_HEADS), np.zeros(N_HEADS)
    visited = [u]
    for t in range(1, options.adam_steps + 1):
        temperature = first * (last / first) ** ((t - 1) / max(options.adam_steps - 1, 1))
        sd = float(np.sqrt(u @ covariance @ u))
        beta = u / (temperature * sd)
        slope = sample.soft(beta, "sigmoid").gradient.mean(axis=0)
        # β depends on u by its direction alone: dβ/du = (I − u uᵀC / sd²) / (T sd)
        slope = (slope - (covariance @ u) * (u @ slope) / sd**2) / (temperature * sd)
        m = BETAS[0] * m + (1 - BETAS[0]) * slope
        v = BETAS[1] * v + (1 - BETAS[1]) * slope**2
        rate = options.adam_rate * np.sqrt(1 - BETAS[1] ** t) / (1 - BETAS[0] ** t)
        u = on_sphere(u - rate * m / (np.sqrt(v) + 1e-12))
        visited.append(u)
    ends = np.stack(visited[-1 :: -max(1, options.adam_steps // 20)])  # re-scored hard
    losses = problem.mean_losses(ends)
    k = int(losses.argmin())
    count = 64 + options.adam_steps + len(ends)
    return SearchResult(ends[k], float(losses[k]), count, {"soft_topk": float(losses[k])})
