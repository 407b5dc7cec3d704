"""One logistic regression per head, fitted by scikit-learn and kept as a linear layer.

Source: METHODS §6.4.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt
import polars as pl
import scipy.sparse as sp
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from reelrank.features.heads import HEADS
from reelrank.models.registry import register
from reelrank.models.value_inputs import FeatureBlock, ValueInputs
from reelrank.models.value_model import N_HEADS, BlockSpec, Floats, ValueModel, ValueSpec
from reelrank.pipelines.value_model.options import LogisticOptions


@register("logistic", LogisticOptions, ValueSpec)
class LogisticHeads(ValueModel):
    """Linear in the continuous columns, one coefficient per code of the categorical ones."""

    def __init__(self, config: LogisticOptions, spec: ValueSpec) -> None:
        super().__init__(config, spec)
        self.user, self.item, self.edge = (
            nn.Parameter(torch.zeros(_columns(block), N_HEADS), requires_grad=False)
            for block in (spec.user, spec.item, spec.edge)
        )
        self.intercept = nn.Parameter(torch.zeros(N_HEADS), requires_grad=False)

    def predict(self, inputs: ValueInputs, block_rows: int) -> Floats:
        """See :class:`ValueModel`."""
        self.spec.check(inputs)
        user, item = _scores(inputs.user, self.user), _scores(inputs.item, self.item)
        intercept = self.intercept.numpy()
        out = np.empty((len(inputs.user_id), N_HEADS), np.float32)
        for first in range(0, len(out), block_rows):
            rows = slice(first, first + block_rows)
            edge = FeatureBlock(
                inputs.edge.continuous[rows],
                inputs.edge.categorical[rows],
                inputs.edge.cardinalities,
            )
            z = user[inputs.user_id[rows]] + item[inputs.item_id[rows]] + intercept
            out[rows] = torch.from_numpy(z + _scores(edge, self.edge)).sigmoid().numpy()
        return out


def fit_logistic(
    inputs: ValueInputs,
    labels: npt.NDArray[np.int8],
    train: npt.NDArray[np.integer],
    options: LogisticOptions,
) -> tuple[LogisticHeads, pl.DataFrame]:
    """Fit the four regressions on train edges.

    A head with one class in train predicts its smoothed rate for everyone.

    Args:
        inputs: continuous columns standardised on train.
        labels: (E, 4) 0, 1, or −1 for unknown: such edges are left out of that head.
        train: (n,) edges to fit on.
        options: penalty, iterations, and how many edges are drawn.

    Returns:
        The model, and a row per head: head, rows, positives, iterations, converged.

    Raises:
        ValueError: a head is unknown on all these edges.
    """
    spec = ValueSpec.of(inputs)
    spec.check(inputs)
    if options.max_rows is not None and options.max_rows < len(train):
        rng = np.random.default_rng(options.seed)
        train = np.sort(rng.choice(train, options.max_rows, replace=False))
    design = _design(inputs, train)
    weights = np.zeros((design.shape[1], N_HEADS))
    intercept = np.zeros(N_HEADS)
    report = []
    for j, head in enumerate(HEADS):
        known = np.flatnonzero(labels[train, j] >= 0)
        y = labels[train[known], j]
        n, positives = len(y), int(y.sum())
        if not n:
            raise ValueError(f"head {head!r} is unknown on all {len(train)} train edges")
        iterations, converged = 0, True
        if 0 < positives < n:
            model = LogisticRegression(C=options.c, solver="lbfgs", max_iter=options.max_iter)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # reported below
                model.fit(design[known], y)
            iterations = int(model.n_iter_[0])
            converged = iterations < options.max_iter
            weights[:, j], intercept[j] = model.coef_[0], model.intercept_[0]
        else:
            intercept[j] = math.log((positives + 0.5) / (n - positives + 0.5))
        report.append((head, n, positives, iterations, converged))
    fitted = LogisticHeads(options, spec)
    ends = np.cumsum([_columns(spec.user), _columns(spec.item)])
    for parameter, part in zip(
        (fitted.user, fitted.item, fitted.edge), np.split(weights, ends), strict=True
    ):
        parameter.copy_(torch.from_numpy(part))
    fitted.intercept.copy_(torch.from_numpy(intercept))
    names = ["head", "rows", "positives", "iterations", "converged"]
    return fitted, pl.DataFrame(report, schema=names, orient="row")


def _design(inputs: ValueInputs, rows: npt.NDArray[np.integer]) -> sp.csr_array:
    """The features of edges ``rows``, categories one-hot: user's, item's, the edge's own."""
    edge = inputs.edge
    own = FeatureBlock(edge.continuous[rows], edge.categorical[rows], edge.cardinalities)
    user, item = _one_hot(inputs.user), _one_hot(inputs.item)
    parts = [user[inputs.user_id[rows]], item[inputs.item_id[rows]], _one_hot(own)]
    return sp.hstack(parts, format="csr")


def _one_hot(block: FeatureBlock) -> sp.csr_array:
    """(n, c + Σ cardinality)."""
    n, k = block.categorical.shape
    starts = np.cumsum([0, *block.cardinalities])
    columns = (block.categorical + starts[:-1]).ravel()
    indptr = np.arange(0, n * k + 1, k) if k else np.zeros(n + 1, np.int64)
    codes = sp.csr_array((np.ones(n * k), columns, indptr), shape=(n, int(starts[-1])))
    return sp.hstack([sp.csr_array(block.continuous.astype(np.float64)), codes], format="csr")


def _scores(block: FeatureBlock, weight: Tensor) -> Floats:
    """(n, 4): the same product as with :func:`_one_hot`, without it."""
    w = weight.numpy()
    n_continuous = block.continuous.shape[1]
    starts = n_continuous + np.cumsum([0, *block.cardinalities])[:-1]
    total: Floats = block.continuous @ w[:n_continuous]
    for k, start in enumerate(starts):
        total += w[start + block.categorical[:, k]]
    return total


def _columns(spec: BlockSpec) -> int:
    return spec.continuous + sum(spec.cardinalities)
