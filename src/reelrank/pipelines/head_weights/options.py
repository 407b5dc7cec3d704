"""How head weights are searched for, how sure one may be of them, and what they are compared with."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from reelrank.options import Options

Method = Literal["cma", "nelder_mead", "tpe", "cmaes_sampler", "soft_topk"]


class SearchOptions(Options):
    """Minimising the hard loss over directions."""

    method: Method = Field(
        "cma",
        description="cma: quasi-random directions, CMA-ES, Nelder–Mead; nelder_mead: from equal weights, as the author's code [A]; "
        "tpe, cmaes_sampler: Optuna; soft_topk: Adam on the sigmoid relaxation",
    )
    sphere: Literal["full", "half"] = Field(
        "full",
        description="full: w = u/‖u‖₁; half: w ∝ (x, −(1 − Σx)), the author's form, which has w₁+w₂+w₃−w₄ > 0 only [A]",
    )
    directions: int = Field(2000, ge=8, description="quasi-random directions [S]")
    starts: int = Field(5, ge=1, description="best directions that CMA-ES starts from [S]")
    population: int = Field(16, ge=4, description="CMA-ES: points of a generation [S]")
    sigma: float = Field(0.3, gt=0, description="CMA-ES: first step [S]")
    generations: int = Field(60, ge=1, description="CMA-ES: at most so many generations [S]")
    sessions: int = Field(5000, ge=1, description="common random subsample before the polish [S]")
    xatol: float = Field(1e-3, gt=0, description="Nelder–Mead: tolerance in u [A]")
    fatol: float = Field(1e-4, gt=0, description="Nelder–Mead: tolerance in L [A]")
    trials: int = Field(200, ge=1, description="Optuna: trials [S]")
    adam_rate: float = Field(0.02, gt=0, description="soft_topk: learning rate [S]")
    adam_steps: int = Field(200, ge=1, description="soft_topk: steps from the first T to the last [D]")  # fmt: skip
    temperatures: tuple[float, float] = Field(
        (1.0, 0.01), description="soft_topk: first and last T, in sd of the score [S]"
    )
    seed: int = Field(0, ge=0, description="of directions, subsample and CMA-ES")


class SoftOptions(Options):
    """Joint estimation of weights and temperature on the smooth loss."""

    starts: int = Field(4, ge=1, description="best of the start points that are followed [D]")
    sessions: int = Field(
        1000, ge=1, description="random sessions that starts are chosen and followed on [D]"
    )
    first_temperatures: tuple[float, ...] = Field(
        (0.15, 0.5, 1.5), min_length=1, description="T of the start points, in sd of the score [D]"
    )
    lowest_temperature: float = Field(
        0.01,
        gt=0,
        description="T is not taken below this, in sd of the score [S: end of annealing]",
    )
    max_steps: int = Field(100, ge=1, description="Levenberg–Marquardt steps [D]")
    tolerance: float = Field(
        1e-7, gt=0, description="stops when the expected relative fall of L is below this [D]"
    )


class InferenceOptions(Options):
    """Cluster bootstrap over users, profiles, and the rule for "identified"."""

    replicates: int = Field(200, ge=20, description="resamples of users B [S]")
    refit: Literal["full", "one_step"] = Field(
        "one_step",
        description="soft loss: one_step: a Newton step from derivatives kept by user; full: minimised anew in each resample",
    )
    pool: int = Field(
        512, ge=1, description="hard loss: directions around ŵ whose losses by user are kept [D]"
    )
    polish_steps: int = Field(
        20, ge=0, description="hard loss: Nelder–Mead iterations from the best of the pool [D]"
    )
    angles: int = Field(25, ge=5, description="points of a profile along an angle [D]")
    landscape: int = Field(41, ge=5, description="points a side of the two-angle landscape [D]")
    profile_sessions: int = Field(
        1000, ge=1, description="random sessions that profiles and landscape use [D]"
    )
    max_vif: float = Field(
        100.0,
        gt=1,
        description="above: the weight is not identified (R² with the others > 0.99) [D]",
    )
    max_condition_index: float = Field(
        30.0, gt=1, description="above: none is [R: Belsley, Kuh and Welsch, severe collinearity]"
    )
    max_width: float = Field(
        0.5, gt=0, le=2, description="width of a weight's 95 % interval above which it is not identified [D]"
    )  # fmt: skip
    min_cosine: float = Field(
        0.98,
        gt=0,
        lt=1,
        description="5 % quantile of cos(ŵ_b, ŵ) below which none is identified [D]",
    )
    max_p_flat: float = Field(
        0.01, gt=0, lt=1, description="p of β = 0 above which none is: order owes nothing to the heads [D]"
    )  # fmt: skip
    seed: int = Field(0, ge=0, description="of resamples, pool and profile sessions")


class NullOptions(Options):
    """Recommenders without head weights."""

    draws: int = Field(20, ge=1, description="draws of the user-category-share sampler [D]")
    smoothing: float = Field(
        1.0,
        gt=0,
        description="rows added to each category of a user's share, by the overall share [D]",
    )
    replicates: int = Field(1000, ge=20, description="resamples of users")
    seed: int = Field(0, ge=0, description="of draws and resamples")


class AlternativeOptions(Options):
    """Other objectives for the same weights."""

    negatives: int = Field(
        5, ge=1, description="Bradley–Terry: never shown candidates drawn per shown one [D]"
    )
    ridge: float = Field(
        1e-6, ge=0, description="squared norm added per row, so that a separable fit ends [D]"
    )
    max_steps: int = Field(50, ge=1, description="Newton steps [D]")
    seed: int = Field(0, ge=0, description="of the negatives")
