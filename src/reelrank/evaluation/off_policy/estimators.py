r"""Off-policy estimators of a bandit value, on arrays: what each row adds to numerators and denominators.

Logged rows $(x_i, a_i, r_i)$, weights $w_i = \pi_e(a_i|x_i) / \pi_b(a_i|x_i)$, reward model $\hat q$, $\hat q(x, \pi) = \sum_a \pi(a|x)
\hat q(x, a)$. An estimate is a sum of ratios, so that one bootstrap (:meth:`reelrank.evaluation.uncertainty.UserBootstrap.ratios`)
recomputes it whole in every resample. Names are those of the Open Bandit Pipeline.

All estimate the mean over logged contexts of $\sum_a \pi_e(a|x) E[r|x,a]$ (``bandit_value``), not the value of rolling the policy out.

Source: METHODS §7.1, §7.2 [S, R].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numba import njit

from reelrank.evaluation.uncertainty import Ratio, UserBootstrap

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

CAP = 10.0  # METHODS §7.2 [A]
GROUPS = 10  # METHODS §7.2: quantiles of a value model
LARGEST = 1e100  # a weight stops here: sums stay finite
GAUSSIAN_SIGMA = 25.0  # item ranks, METHODS §7.2 [A]


@dataclass(frozen=True, slots=True)
class Terms:
    """What an estimator makes of the rows.

    Attributes:
        parts: the estimate is their sum.
        weight: (n,) the weights as they entered, after cap or shrinkage.
    """

    parts: tuple[Ratio, ...]
    weight: FloatArray

    def value(self) -> float:
        """The point estimate; NaN where no row has weight."""
        one_user = np.zeros(self.weight.size, np.int64)
        return UserBootstrap([0], replicates=1).ratios(one_user, [self.parts])[0].value


def rm(reward: FloatArray, matched: FloatArray) -> Terms:
    """Replay: mean reward of the rows whose action is the one that a deterministic policy takes.

    Args:
        reward: (n,).
        matched: (n,) 1 where π_e(a_i|x_i) = 1, else 0.
    """
    return Terms((Ratio(matched * reward, matched),), matched)


def ipw(reward: FloatArray, weight: FloatArray, lambda_: float = math.inf) -> Terms:
    """``mean(min(w, λ) r)``; ``reward`` and ``weight`` are (n,), as in all that follow."""
    clipped = np.minimum(weight, lambda_)
    return Terms((_mean(clipped * reward),), clipped)


def snipw(reward: FloatArray, weight: FloatArray) -> Terms:
    """Σ w r / Σ w: inside the range of the rewards."""
    return Terms((Ratio(weight * reward, weight),), weight)


def sg_ipw(reward: FloatArray, weight: FloatArray, lambda_: float) -> Terms:
    """IPW with sub-Gaussian weights w / (1 − λ + λw)."""
    shrunk = sub_gaussian_weight(weight, lambda_)
    return Terms((_mean(shrunk * reward),), shrunk)


def dm(weight: FloatArray, q_policy: FloatArray) -> Terms:
    """The mean of q̂(x, π_e); the weights do not enter, and only say how far π_e is from the log.

    Args:
        weight: (n,).
        q_policy: (n,) q̂(x, π_e).
    """
    return Terms((_mean(q_policy),), weight)


def dr(
    reward: FloatArray,
    weight: FloatArray,
    q_policy: FloatArray,
    q_logged: FloatArray,
    lambda_: float = math.inf,
) -> Terms:
    """``mean[q̂(x, π_e) + min(w, λ)(r − q̂(x, a))]``.

    Args:
        reward: (n,).
        weight: (n,).
        q_policy: (n,) q̂(x, π_e).
        q_logged: (n,) q̂(x, a) of the logged action.
        lambda_: cap of the weights.
    """
    return _corrected(reward, np.minimum(weight, lambda_), q_policy, q_logged)


def sndr(
    reward: FloatArray, weight: FloatArray, q_policy: FloatArray, q_logged: FloatArray
) -> Terms:
    """``mean q̂(x, π_e) + Σ w(r − q̂(x, a)) / Σ w``. Arguments as :func:`dr`."""
    return Terms((_mean(q_policy), Ratio(weight * (reward - q_logged), weight)), weight)


def switch_dr(
    reward: FloatArray,
    weight: FloatArray,
    q_policy: FloatArray,
    q_logged: FloatArray,
    lambda_: float,
) -> Terms:
    """DR that trusts q̂ alone where w > λ. Arguments as :func:`dr`."""
    return _corrected(reward, np.where(weight <= lambda_, weight, 0.0), q_policy, q_logged)


def dr_os(
    reward: FloatArray,
    weight: FloatArray,
    q_policy: FloatArray,
    q_logged: FloatArray,
    lambda_: float,
) -> Terms:
    """DR with optimistic shrinkage λw / (w² + λ): λ = 0 is DM, λ = ∞ is DR. Arguments as :func:`dr`."""
    return _corrected(reward, shrunk_weight(weight, lambda_), q_policy, q_logged)


def sg_dr(
    reward: FloatArray,
    weight: FloatArray,
    q_policy: FloatArray,
    q_logged: FloatArray,
    lambda_: float,
) -> Terms:
    """DR with sub-Gaussian weights w / (1 − λ + λw). Arguments as :func:`dr`."""
    return _corrected(reward, sub_gaussian_weight(weight, lambda_), q_policy, q_logged)


def ncis(reward: FloatArray, weight: FloatArray, cap: float = CAP) -> Terms:
    r"""$\sum \bar w r / \sum \bar w$, $\bar w = \min(w, c)$; per step, or of a trajectory with :func:`trajectory_weight`.

    The bias is $-Cov_{\pi_e}(r, \bar w/w) / E[\bar w/w]$: large where reward and clipping go together.

    Source: METHODS §7.2 [A: per step, c = 10, rewards undiscounted].
    """
    return snipw(reward, np.minimum(weight, cap))


def piece_ncis(reward: FloatArray, weight: FloatArray, group: IntArray, cap: float = CAP) -> Terms:
    """Mean of the groups' NCIS, weighted by their rows; ``group`` (n,) from :func:`quantile_groups`.

    NaN where a group has rows but no weight. Source: METHODS §7.2.
    """
    clipped = np.minimum(weight, cap)
    return Terms((Ratio(clipped * reward, clipped, group),), clipped)


def trajectory_weight(weight: FloatArray, session: IntArray) -> FloatArray:
    """Π_{k ≤ t} w_k over the steps of a session up to this one.

    Args:
        weight: (n,), the rows of a session in the order of its steps.
        session: (n,) session of each row, from 0; rows of different sessions may alternate.

    Source: METHODS §7.2 [M].
    """
    return _products(weight, session, int(session.max(initial=-1)) + 1)


def marginal_weight(
    policy: FloatArray, behaviour: FloatArray, category: IntArray, position: IntArray
) -> FloatArray:
    """π_e(e|x) / π_b(e|x) of the logged action's category e, for ``mips``: weights of few categories instead of many actions.

    Unbiased only if the reward depends on the action through its category.

    Args:
        policy: (n, A) π_e.
        behaviour: (n, A) π_b.
        category: (n, A) category of each action.
        position: (n,) column of the logged action.

    Source: METHODS §7.4 OP-04 [R: obp's marginalised weights].
    """
    own = np.take_along_axis(category, position[:, None], axis=1)
    same = category == own
    weight: FloatArray = np.where(same, policy, 0).sum(axis=1) / np.where(same, behaviour, 0).sum(axis=1)  # fmt: skip
    return weight


def gaussian_index_weight(
    index: FloatArray, policy_index: FloatArray, behaviour_index: FloatArray
) -> FloatArray:
    """TSCAC's weight: item ranks as real numbers, N(index; policy, σ = 25) / N(index; behaviour, σ); it clips to [0, 10].

    Distances between popularity ranks carry no meaning: a diagnostic, never a result.

    Args:
        index: (n,) rank by views of the logged item.
        policy_index: (n,) output of the policy, read as a rank.
        behaviour_index: (n,) rank of the item that the behaviour classifier thinks most likely.

    Source: METHODS §7.2 [A].
    """
    square = (index - behaviour_index) ** 2 - (index - policy_index) ** 2
    return np.exp(np.minimum(square / (2 * GAUSSIAN_SIGMA**2), math.log(LARGEST)))


def quantile_groups(value: FloatArray, groups: int = GROUPS) -> IntArray:
    """(n,) group of each row by the quantiles of a value model V(x) (n,); equal values stay together."""
    edges = np.quantile(value, np.arange(1, groups) / groups)
    found = np.searchsorted(edges, value, side="right")
    return np.unique(found, return_inverse=True)[1].astype(np.int64)


def shrunk_weight(weight: FloatArray, lambda_: float) -> FloatArray:
    """The weights λw / (w² + λ), at most √λ / 2."""
    if math.isinf(lambda_):
        return weight
    return lambda_ * weight / (weight**2 + lambda_) if lambda_ > 0 else np.zeros_like(weight)


def sub_gaussian_weight(weight: FloatArray, lambda_: float) -> FloatArray:
    """The weights w / (1 − λ + λw), at most 1 / λ; 0 ≤ λ < 1."""
    return weight / (1 - lambda_ + lambda_ * weight)


def _mean(values: FloatArray) -> Ratio:
    return Ratio(values, np.broadcast_to(1.0, values.shape))  # ones, without their memory


def _corrected(
    reward: FloatArray, weight: FloatArray, q_policy: FloatArray, q_logged: FloatArray
) -> Terms:
    return Terms((_mean(q_policy + weight * (reward - q_logged)),), weight)


@njit(cache=True, nogil=True)
def _products(weight: FloatArray, session: IntArray, n_sessions: int) -> FloatArray:
    running = np.ones(n_sessions)
    products = np.empty_like(weight)
    for i in range(weight.size):
        running[session[i]] = min(running[session[i]] * weight[i], LARGEST)
        products[i] = running[session[i]]
    return products
