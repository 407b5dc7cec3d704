"""OP-03: KuaiRec's small matrix, where what every user makes of every video is known, so any policy has a known value."""

from __future__ import annotations

import numpy as np
import polars as pl

from reelrank.evaluation.off_policy import BehaviourRows, fit_behaviour_policy, softened
from reelrank.evaluation.results import ResultRow
from reelrank.pipelines.ope_validity.options import MatrixOptions
from reelrank.pipelines.ope_validity.population import (
    FloatArray,
    IntArray,
    Population,
    draw_log,
    target_policies,
    values,
)
from reelrank.pipelines.ope_validity.repetitions import (
    ESTIMATED,
    TRUE,
    repeat,
    summarise,
    summary_rows,
    with_greedy,
)

WATCH_CAP = 2.0  # METHODS §3.8
MIN_OBSERVED = 0.9  # [D] of the cells, for a true value; the release has 0.996
HIDDEN_SD = 0.5  # [D] of what the logging policy knows and π̂_b cannot


def matrix_population(
    observed: pl.DataFrame, interactions: pl.DataFrame, items: pl.DataFrame, options: MatrixOptions
) -> tuple[Population, FloatArray, FloatArray]:
    """One context per user, all items as actions, the watched share of each (at most 2) as its reward.

    A cell that the matrix lacks takes its item's mean. π_b is a softmax over popularity, the user's taste for the item's category, both
    from the big matrix, and noise that no feature shows.

    Args:
        observed: ``Observed``.
        interactions: the big matrix: user_id, item_id, watch_ratio.
        items: ``Items``.
        options: sizes and temperature.

    Returns:
        the population, (users, categories) taste, (items,) popularity.
    """
    rng = np.random.default_rng(options.seed)
    users = _sample(rng, observed["user_id"].unique().sort().to_numpy(), options.max_users)
    chosen = _sample(rng, observed["item_id"].unique().sort().to_numpy(), options.max_items)
    cells = observed.filter(pl.col("user_id").is_in(users), pl.col("item_id").is_in(chosen))
    reward = np.full((users.size, chosen.size), np.nan)
    row, column = (
        np.searchsorted(ids, cells[name].to_numpy())
        for ids, name in ((users, "user_id"), (chosen, "item_id"))
    )
    reward[row, column] = cells["watch_ratio"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    reward = np.minimum(reward, WATCH_CAP)
    reward = np.where(np.isnan(reward), np.nanmean(reward, axis=0), reward)
    of_item = items["tags"].list.first().fill_null(-1).rank("dense").to_numpy().astype(np.int64) - 1
    big = interactions.select("user_id", "item_id")
    popularity = np.bincount(big["item_id"], minlength=items.height).astype(np.float64) + 1
    taste = _taste(big.filter(pl.col("user_id").is_in(users)), users, of_item)
    category = of_item[chosen]
    scores = (
        _standard(np.log(popularity[chosen]))[None]
        + _standard(taste[:, category])
        + rng.normal(0, HIDDEN_SD, reward.shape)
    )

    def draw(_: np.random.Generator, rows: IntArray, columns: IntArray) -> FloatArray:
        drawn: FloatArray = reward[rows, columns]
        return drawn

    population = Population(
        user=np.arange(users.size),
        action=np.broadcast_to(np.arange(chosen.size), reward.shape),
        behaviour=softened(scores, options.temperature),
        expected=reward,
        category=category,
        draw_reward=draw,
    )
    return population, taste, popularity[chosen]


def estimated_probabilities(
    population: Population, taste: FloatArray, options: MatrixOptions
) -> FloatArray:
    """(R, C) π̂_b, from a log of its own: contexts are the users' tastes."""
    train, val = (
        BehaviourRows(population.user[log.context], taste[log.context], log.column)
        for log in (
            draw_log(population, n, options.rows_per_user, seed)
            for n, seed in ((options.fit_rows, 10**6), (options.fit_rows // 4, 10**6 + 1))
        )
    )
    n_actions = population.action.shape[1]
    fitted = fit_behaviour_policy(train, val, n_actions, options.behaviour)
    everyone = BehaviourRows(population.user, taste, np.zeros(len(taste), np.int64))
    return np.maximum(fitted.probabilities(everyone), options.behaviour.floor)


def op_03(
    observed: pl.DataFrame, interactions: pl.DataFrame, items: pl.DataFrame, options: MatrixOptions
) -> dict[str, list[ResultRow]]:
    """Error relative to the true value, and coverage, with true and with estimated propensities.

    Arguments as :func:`matrix_population`. No rows where too few cells are observed for any value to be known.
    """
    cells_of_matrix = observed["user_id"].n_unique() * observed["item_id"].n_unique()
    if observed.height < MIN_OBSERVED * cells_of_matrix:
        return {}
    population, taste, popularity = matrix_population(observed, interactions, items, options)
    policies = with_greedy(target_policies(population, popularity, options.seed))
    truth = values(population, policies)
    n_users = len(population.user)
    logging = population.bandit_value(population.behaviour)
    cells = {
        "truth": [
            ResultRow(name, "bandit_value", value, n_users)
            for name, value in {"logging": logging, **truth}.items()
        ]
    }
    estimated = estimated_probabilities(population, taste, options)
    for cell, propensity, repetitions in (
        (TRUE, population.behaviour, options.repetitions),
        (ESTIMATED, estimated, options.repetitions_estimated),
    ):
        cells[cell] = []
        for n in options.sizes:
            repeated = repeat(
                population, policies, propensity, n=n, repetitions=repetitions,
                rows_per_user=options.rows_per_user, replicates=options.replicates, seed=options.seed,
            )  # fmt: skip
            cells[cell] += summary_rows(summarise(repeated, truth), n)
    return cells


def _sample(rng: np.random.Generator, ids: IntArray, most: int) -> IntArray:
    chosen: IntArray = np.sort(rng.choice(ids, min(most, ids.size), replace=False))
    return chosen


def _taste(rows: pl.DataFrame, users: IntArray, category: IntArray) -> FloatArray:
    """(users, categories) share of each category in what a user watched."""
    counts = np.zeros((users.size, int(category.max()) + 1))
    user = np.searchsorted(users, rows["user_id"].to_numpy())
    np.add.at(counts, (user, category[rows["item_id"].to_numpy()]), 1)
    shares: FloatArray = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return shares


def _standard(values_: FloatArray) -> FloatArray:
    spread = values_.std()
    standard: FloatArray = (values_ - values_.mean()) / (spread if spread > 0 else 1.0)
    return standard
