"""The figures and the page of one MT-DQN run: what was read, what was learnt, what it is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl

from reelrank.features.rewards import SIGNALS, RewardOptions, rescaling, reward_terms
from reelrank.models.behaviours import label_names, watch_rule
from reelrank.pipelines.mt_dqn import study_report
from reelrank.pipelines.mt_dqn.evaluate import logged_behaviours
from reelrank.reports import figures
from reelrank.reports.page import Fact, Section, Table, plain_table, render_page
from reelrank.reports.result_tables import differences_table, results_table
from reelrank.tables import FEEDBACKS, MODALITIES

SOURCE_NAMES = {"kuairand": "KuaiRand", "kuairec": "KuaiRec", "weibo": "Weibo"}
FIGURES = (
    "learning_curves",
    "metrics",
    "differences",
    "gates",
    "attention",
    "q_against_returns",
    "reward_parts",
    "ingestion_steps",
    "split_sizes",
    "studies",
)


def draw(
    results: pl.DataFrame,
    events: pl.DataFrame,
    mt_dqn_impressions: pl.DataFrame,
    gates: pl.DataFrame,
    attention: pl.DataFrame,
    ingestion_report: dict[str, Any],
    reward: RewardOptions,
    *histories: pl.DataFrame,
) -> tuple[go.Figure, ...]:
    """Every figure of the report, in the order of ``FIGURES``."""
    main = results.filter(experiment="MT-01")
    test = mt_dqn_impressions.filter(pl.col("split") == "test")
    logged = events.select("return")[test["position"]]
    sizes = events.group_by("split").agg(
        rows=pl.len(),
        users=pl.col("user_id").n_unique(),
        items=pl.col("item_id").n_unique(),
        sessions=pl.col("session_id").n_unique(),
    )
    return (
        figures.learning_curves(pl.concat(histories, how="diagonal")),
        figures.metric_bars(main.filter(pl.col("metric").str.contains("ndcg|f1|ap"))),
        figures.paired_differences(main.filter(pl.col("metric").str.contains("ndcg"))),
        figures.gate_weights(gates),
        figures.attention_heatmap(_attention_array(attention)),
        _q_against_returns(test.select("q", "value").with_columns(logged)),
        figures.reward_parts(events, reward.lambda_retention, reward.lambda_interest),
        figures.ingestion_steps(ingestion_report),
        figures.split_sizes(sizes.sort("split")),
        study_report.figure(results),
    )


def _q_against_returns(rows: pl.DataFrame) -> go.Figure:
    """The figure, or a panel that says why there is none: a part of a day, say, has no day after it."""
    if rows["return"].null_count() < rows.height:
        return figures.q_against_returns(rows)
    said = "Every return of the test part is censored: nobody knows who came back"
    return go.Figure(layout={"title": {"text": said}, "height": 120})


def write(
    results: pl.DataFrame,
    ingestion_report: dict[str, Any],
    split_cuts: dict[str, Any],
    list_counts: pl.DataFrame,
    sizes: pl.DataFrame,
    events: pl.DataFrame,
    raw_manifest: dict[str, Any],
    item_modal: pl.DataFrame,
    reward: RewardOptions,
    command: str,
    **drawn: go.Figure,
) -> str:
    """The page, drawn from result rows and figures of the catalog."""
    figure = {name.removeprefix("figure_"): drawing for name, drawing in drawn.items()}
    first = results.row(0, named=True)
    main = results.filter(experiment="MT-01")
    rank = main.filter(pl.col("metric").str.contains("ndcg|f1|ap"))
    # few comparisons, chosen beforehand: each one more weakens all in the Holm correction
    headline = rank.filter(pl.col("metric").str.contains("ndcg") | (pl.col("weighting") == "macro"))
    error = main.filter(~pl.col("metric").str.contains("ndcg|f1|ap"))
    is_world = first["data_kind"] == "world"
    source = SOURCE_NAMES[raw_manifest["source"]]
    where = f"a generated world in {source}'s format" if is_world else f"real {source} rows"
    sections = [
        Section("Is it any good?", _headline(is_world), facts=_facts(main),
                tables=[results_table(rank, "Ranking and behaviours on the test part"), _signals(events, reward)],
                figures=[figure["metrics"]]),
        Section("Against each baseline", _DIFFERENCES, figures=[figure["differences"]],
                tables=[differences_table(headline, "MT-DQN minus each baseline, same users and lists")]),
        Section("What is left out", _LISTS,
                tables=[_frame_table("Lists of logged impressions", list_counts), _positives(events)]),
        Section("Values", _value_text(events), figures=[figure["q_against_returns"], figure["reward_parts"]],
                tables=[results_table(error, "Errors of value and reward heads on the test part")]),
        Section("What the fusion looks at", _FUSION, tables=[_modalities(item_modal)], figures=[figure["gates"], figure["attention"]]),
        Section("How it learnt", _LEARNING, figures=[figure["learning_curves"]],
                tables=[_frame_table("Parameters at the sizes declared in mt_dqn.sizes", sizes)]),
        *study_report.sections(results, figure["studies"]),
        Section("From raw files to training rows", _ingestion_text(ingestion_report, raw_manifest["source"], item_modal),
                figures=[figure["ingestion_steps"], figure["split_sizes"]],
                tables=[_files(ingestion_report), *_published(ingestion_report)]),
    ]  # fmt: skip
    return render_page(
        f"MT-DQN on {source}",
        f"Multimodal temporal deep Q-network and its baselines on {where}, "
        f"split by time ({split_cuts['rule']}).",
        sections,
        {
            "run id": first["run_id"],
            "code version": first["code_version"],
            "config hash": first["config_hash"],
            "command": command,
        },
        "world" if is_world else "real",
    )


_DIFFERENCES = (
    "Each dot is MT-DQN minus one baseline on the same users, with the same resamples. "
    "An interval that crosses the line at 0 is no evidence of a difference."
)
_LISTS = (
    "A list is a session, or a user's day where sessions hold one row. A list without two items, or "
    "without an item above its median reward, cannot be ranked: it is left out and counted here. "
    "Behaviours with fewer than ten positives are shown and marked, not ranked."
)
_FUSION = (
    "The gate says how much of an item's vector comes from each modality; the heat map, which modality's "
    "tokens attend to which. A gate that is the same for all modalities and items is a collapsed fusion."
)
_LEARNING = (
    "Losses on train rows and the validation metric that chose the epoch. Thresholds, stopping and "
    "choice of epoch see validation rows only."
)


def _headline(is_world: bool) -> str:
    text = (
        "NDCG@5 asks how high the videos stand that a user rewarded most. “logged” ranks the videos that "
        "were shown together, scored from what was known when the list began; “catalogue” ranks "
        "all videos available at that moment, where an unseen video counts as irrelevant. “random” is the expectation of a random order."
    )
    if is_world:
        text += (
            "\n\ntrue_ndcg@5 is what a log cannot tell: here the expected reward of every user with every "
            "video is planted, so the whole catalogue is judged. 1 is the best order possible. These numbers "
            "come from generated data and say nothing about real users."
        )
    return text


def _facts(results: pl.DataFrame) -> list[Fact]:
    own = results.filter(pl.col("variant") == "mt_dqn", pl.col("paired_with").is_null())
    wanted = (
        ("true_ndcg@5", "catalogue", "", "True NDCG@5"),
        ("ndcg@5", "logged", "binary", "NDCG@5, logged lists"),
        ("f1", "all", "macro", "F1, macro"),
    )
    facts = []
    for metric, group, weighting, label in wanted:
        rows = own.filter(metric=metric, group=group, weighting=weighting)
        if rows.height and rows["value"][0] is not None:
            row = rows.row(0, named=True)
            low, high = (
                "–" if row[end] is None else f"{row[end]:.3f}" for end in ("ci_low", "ci_high")
            )
            mark = "" if row["reliable"] else " †"
            facts.append(
                Fact(f"{label}{mark}", f"{row['value']:.3f}", f"[{low}, {high}], n = {row['n']:,}")
            )
    return facts


def _value_text(events: pl.DataFrame) -> str:
    text = (
        "Value errors compare the on-policy head, which learns the value of what was shown, with the "
        "discounted return that followed in the session, in standard deviations of the train returns. "
        "Q̂ is the value of acting greedily and stands beside it; it need not match the log."
    )
    length = events.filter(is_rand=0).group_by("session_id").len()["len"].median()
    if length == 1:
        text += (
            "\n\nMost sessions here hold one row: the return is the reward and γ has no effect. "
            "Nothing about long-term value is claimed (MT-03, MT-10)."
        )
    return text


def _ingestion_text(report: dict[str, Any], source: str, item_modal: pl.DataFrame) -> str:
    bad = sum(file["bad"] for file in report["files"])
    duplicates = sum(file["duplicates"] for file in report["files"])
    proxies = (
        "Modal embeddings are the world's own."
        if set(item_modal["source"]) == {"synthetic"}
        else "Where no media are known the modalities are metadata proxies (format and tags, music and duration, text where "
        "present; the table of sources says which). No claim about modalities rests on them."
    )
    return (
        f"{report['steps'][0]['rows']:,} rows read, {duplicates:,} exact duplicates dropped, {bad:,} rows "
        f"quarantined with file, line and reason (table {source}.quarantine). {proxies}"
    )


def _signals(events: pl.DataFrame, reward: RewardOptions) -> Table:
    """What the log holds of what the models are trained on: a signal that is not logged is neither learnt nor judged."""
    known = {True: "logged", False: "not logged: left out"}
    judged, terms = logged_behaviours(events), reward_terms(events.lazy())
    factor = (
        f"× {rescaling(terms, reward.weights):.3g}, so that these terms reach as far as all six"
    )
    rows = [
        *([b, name, known[b in judged]] for b, name in label_names(watch_rule(events.lazy())).items()),
        *([f"reward: {t}", column, known[t in terms]] for t, column in SIGNALS.items()),
        ["reward: together", " + ".join(terms), factor if len(terms) < len(SIGNALS) else "as they are"],
    ]  # fmt: skip
    return plain_table("Behaviours and reward terms", ["what", "column", "in this log"], rows)


def _modalities(item_modal: pl.DataFrame) -> Table:
    """Where each modality's vectors come from; a proxy is no picture and no sound."""
    counts = item_modal.group_by("modality", "source").agg(
        items=pl.len(), present=pl.col("present").sum()
    )
    return _frame_table("Source of each modality", counts.sort("modality", "source"))


def _positives(events: pl.DataFrame) -> Table:
    """How many of each feedback every part holds: rare ones must be seen to be rare."""
    counts = (
        events.filter(is_rand=0).group_by("split").agg(pl.len().alias("rows"), *(pl.col(f).sum() for f in FEEDBACKS)).sort("split")
    )  # fmt: skip
    return _frame_table("Rows and positives by part, random exposures left out", counts)


def _files(report: dict[str, Any]) -> Table:
    rows = [[f["file"], f["rows_read"], f["duplicates"], f["bad"]] for f in report["files"]]
    return plain_table("Files read", ["file", "rows", "duplicates", "quarantined"], rows)


def _published(report: dict[str, Any]) -> list[Table]:
    """What a release says of itself beside what was read; nothing where no release is known."""
    if "facts" not in report:
        return []
    rows = [[f["fact"], f["published"], f["measured"], f["status"]] for f in report["facts"]]
    columns = ["fact", "published", "measured", "status"]
    return [plain_table("Published counts and measured ones", columns, rows)]


def _frame_table(caption: str, frame: pl.DataFrame) -> Table:
    return plain_table(caption, frame.columns, frame.rows())


def _attention_array(attention: pl.DataFrame) -> np.ndarray:
    """(layers, heads, query, key) from the long table."""
    order = pl.Enum(MODALITIES)
    mass = attention.with_columns(pl.col("query", "key").cast(order)).sort(
        "layer", "head", "query", "key"
    )
    shape = (attention["layer"].n_unique(), attention["head"].n_unique(), len(MODALITIES), len(MODALITIES))  # fmt: skip
    return mass["mass"].to_numpy().reshape(shape)
