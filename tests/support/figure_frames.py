"""Small tables for every figure of a report, and the figures."""

import numpy as np
import polars as pl

from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.reports import figures as draw


def results():
    rows = [
        ResultRow(variant, metric, 0.4 + shift, 900, 0.35 + shift, 0.45 + shift)
        for metric in ("ndcg@5", "value_mse")
        for variant, shift in (("mt_dqn", 0.1), ("popularity", 0.0))
    ]
    rows += [
        ResultRow("mt_dqn", "f1", 0.01, 900, 0.0, 0.2, reliable=False, group="share"),
        ResultRow("popularity", "f1", np.nan, 900, reliable=False, group="share"),
        ResultRow("mt_dqn", "ndcg@5", 0.1, 900, 0.05, 0.15, paired_with="popularity", p_value=0.02),
        ResultRow("mt_dqn", "f1", -0.1, 900, -0.2, 0.1, paired_with="popularity", p_value=0.3),
    ]
    return results_frame(
        rows, system="mt_dqn", source="kuairand", split="time/test", seed=0, data_kind="world",
        config_hash="abc",
    )  # fmt: skip


def history():
    return pl.DataFrame(
        {
            "variant": ["mt_dqn"] * 4 + ["concat_modal"] * 4,
            "epoch": [1, 1, 2, 2] * 2,
            "step": [10, 20, 30, 40] * 2,
            "loss": [1.0, 0.9, 0.8, 0.7] * 2,
            "loss_q": [1.0, 0.9, 0.8, 0.7] + [None] * 4,
            "val_ndcg@5": [None, 0.4, None, 0.5] * 2,
        }
    )


def rewards():
    return pl.DataFrame(
        {
            "split": pl.Series(["test", "train", "train"], dtype=pl.Enum(["train", "val", "test"])),
            "r_immediate": [0.5, 1.0, 0.0],
            "r_retention": [None, 1.0, 0.0],
            "r_interest": [0.2, 0.1, 0.3],
        }
    )


def gates():
    return pl.DataFrame(
        {
            "item_id": [0, 1],
            "gate_visual": [0.5, 0.4],
            "gate_audio": [0.2, 0.3],
            "gate_text": [0.3, 0.3],
        }
    )


def predictions():
    q = np.linspace(-1, 2, 100)
    censored = np.arange(100) % 10 == 0
    returns = [None if c else float(v) for c, v in zip(censored, q, strict=True)]
    return pl.DataFrame({"q": q + 0.5, "value": q, "return": returns})


def sizes():
    return pl.DataFrame({"split": ["train", "val", "test"], "rows": [7, 1, 2], "users": [3, 1, 2]})


STEPS = {"steps": [{"step": "read", "rows": 10}, {"step": "without duplicates", "rows": 8}]}


def figures():
    """One of every kind."""
    mass = np.full((2, 4, 3, 3), 1 / 3)
    return [
        draw.learning_curves(history()),
        draw.metric_bars(results()),
        draw.paired_differences(results()),
        draw.gate_weights(gates()),
        draw.attention_heatmap(mass),
        draw.q_against_returns(predictions()),
        draw.reward_parts(rewards(), 0.3, 0.2),
        draw.ingestion_steps(STEPS),
        draw.split_sizes(sizes()),
    ]
