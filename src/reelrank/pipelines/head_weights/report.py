"""The figures and the page of the head weights: what a feed rewards, how sure one may be, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go
import polars as pl

from reelrank.features.candidate_features import CandidateOptions
from reelrank.features.heads import HEADS
from reelrank.pipelines.head_weights import drawings
from reelrank.pipelines.head_weights.estimate import HARD, SOFT
from reelrank.pipelines.head_weights.evaluate import HELD_OUT, POSTER
from reelrank.pipelines.head_weights.matching import cosine
from reelrank.pipelines.head_weights.run_options import PublishedOptions
from reelrank.reports import figures
from reelrank.reports.page import Cell, Fact, Section, Table, plain_table, render_page
from reelrank.reports.result_tables import differences_table

FIGURES = (
    "weights",
    "held_out",
    "landscape",
    "profiles",
    "signs",
    "categories",
    "balance",
    "truth",
    "recovery",
    "ingestion_steps",
)
NOT = "not identified"
ALIKE = 0.9  # mean cosine of item vectors above which a reader is warned


def draw(
    results: pl.DataFrame,
    weights: dict[str, Any],
    category_shares: pl.DataFrame,
    diagnosis: dict[str, Any],
    ingestion_report: dict[str, Any],
    published: PublishedOptions,
) -> tuple[go.Figure, ...]:
    """Every figure of the report, in the order of ``FIGURES``."""
    held_out = results.filter(experiment="GV-05", cell=HELD_OUT)
    truth = _truth_rows(results).filter(metric="cosine_to_truth", variant=SOFT)
    recovery = results.filter(experiment="GV-06", cell="planted recovery", metric="cosine_to_truth")
    return (
        drawings.weight_intervals(weights, published.weights, _planted(weights)),
        figures.paired_differences(held_out),
        drawings.landscape(weights),
        drawings.profile_lines(weights),
        drawings.sign_frequencies(weights),
        drawings.category_bars(category_shares),
        drawings.balance_dots(diagnosis["balance"]),
        figures.cell_intervals(truth, "Planted weights found again", "cosine with the planted weights")
        if truth.height
        else drawings.nothing("Planted weights found again", "real rows have no planted weights"),
        figures.cell_intervals(
            recovery.with_columns(cell="group"), "Weights planted on these candidates",
            "cosine with the planted weights",
        ),
        figures.ingestion_steps(ingestion_report),
    )  # fmt: skip


def write(
    results: pl.DataFrame,
    weights: dict[str, Any],
    diagnosis: dict[str, Any],
    category_shares: pl.DataFrame,
    ranking_report: dict[str, int],
    ingestion_report: dict[str, Any],
    published: PublishedOptions,
    candidates: CandidateOptions,
    command: str,
    **drawn: go.Figure,
) -> str:
    """The page, drawn from result rows and figures of the catalog."""
    figure = {name.removeprefix("figure_"): drawing for name, drawing in drawn.items()}
    first = results.row(0, named=True)
    is_world = first["data_kind"] == "world"
    held_out = results.filter(experiment="GV-05", cell=HELD_OUT)
    sections = [
        Section("What does the feed reward? (GV-05)", _headline_text(weights, is_world), [figure["weights"]],
                [_weight_table(weights, published)], _facts(weights, held_out)),
        Section("Is it better than no weights at all? (GV-05)", _null_text(results, held_out), [figure["held_out"]],
                [_loss_table(held_out), differences_table(held_out, "Matching loss minus that of ŵ on held-out sessions")]),
        Section("How sharply is it determined? (GV-06)", _identification_text(weights), [figure["landscape"], figure["profiles"], figure["signs"]],
                [_correlation_table(weights)]),
        *_truth_sections(results, figure),
        Section("Weights planted on these very candidates (GV-06)", _RECOVERY, [figure["recovery"]],
                [_study_table(results, "GV-06", "planted recovery", "Planted again at several noises", by="group")]),
        Section("Other searches, embeddings and candidates (GV-05)", _variant_text(candidates), tables=[
            _study_table(results, "GV-05", "search", "Searches of the hard loss, same sessions"),
            _study_table(results, "GV-05", "embedding", "Other embeddings: losses are not comparable, gains are"),
            _study_table(results, "GV-05", "candidates", "Which items could have been shown"),
        ]),
        Section("Other objectives (GV-07)", _objective_text(published),
                tables=[_study_table(results, "GV-07", "objective", "Weights by other objectives")]),
        Section("Other sessions (GV-11)", _SESSIONS, tables=[
            _study_table(results, "GV-11", cell, name)
            for cell, name in (("session gap", "Longest gap inside a session"), ("least length", "Least rows of a session"), ("first shown", "Only the first shown items count"))
        ]),
        Section("Observed and simulated categories", _CATEGORIES, [figure["categories"]],
                [plain_table("Mean share of a session by category", category_shares.columns, category_shares.rows())]),
        Section("What is left: discrepancy or shock? (GV-08)", _residual_text(diagnosis), [figure["balance"]],
                [*_diagnosis_tables(diagnosis)], [Fact("The residual may be called a", diagnosis["verdict"]["word"], "by the rule below")]),
        Section("Does it change how choosy users are? (GV-09)", _selectivity_text(diagnosis),
                tables=[_records("Change of selectivity on the residual, errors clustered by user", diagnosis["selectivity"]["coefficients"])]),
        Section("Heads without beliefs (GV-10)", _debias_text(diagnosis), tables=[
            _study_table(results, "GV-10", "debiased heads", "Simulated rankings against shown ones, test sessions"),
            _records("Change of p̂ per unit of a belief, mean over folds", diagnosis["debias"]["coefficients"]),
        ]),
        Section("Where things went missing", _missing_text(ranking_report), [figure["ingestion_steps"]],
                [plain_table("Sessions and candidates", ["count", "n"], [[name, n] for name, n in ranking_report.items()])]),
    ]  # fmt: skip
    where = "a generated world" if is_world else f"real {ingestion_report['source']} rows"
    return render_page(
        "Head weights on KuaiRec",
        f"Weights of four engagement heads with which the logged rankings look as they do, on {where}.",
        [_without_empty(section) for section in sections],
        {
            "run id": first["run_id"],
            "code version": first["code_version"],
            "config hash": first["config_hash"],
            "command": command,
        },
        "world" if is_world else "real",
    )


_RECOVERY = (
    "The poster's weights are planted on the predictions and candidates of these validation sessions, rankings are drawn from them at several noises, and the weights are "
    "estimated again. What cannot be found here cannot be found in the log either. Whiskers: lowest and highest of the repetitions."
)
_SESSIONS = (
    "The same estimate with other definitions of a session. A loss here is measured on the variant's own sessions and is not comparable across rows with another K; "
    "the gain over random choice is. Differences are to ŵ on the same test sessions."
)
_CATEGORIES = (
    "Mean over sessions of the share of each category. A feed that draws with noise differs from the K highest even if the weights are right; “with noise” is what rankings "
    "drawn by the same weights at the fitted temperature show."
)


def _headline_text(weights: Mapping[str, Any], is_world: bool) -> str:
    verdict = weights[SOFT]["verdict"]
    text = (
        "A session shows K videos. Weights on the predicted heads rank all candidates of the session; the estimate is the weight vector whose K highest look most like what was shown, "
        "in the mean of item vectors of length 1. Only the direction counts, so Σ|w| = 1. The smooth loss estimates the noise of the feed jointly and is the default for inference; the "
        "hard loss knows no noise and stands beside it as a description. Weights are estimated on validation sessions, losses are judged on test sessions."
        f"\n\nVerdict for the smooth loss, given these predictions and candidates: {verdict}. "
    )
    text += (
        "Read w as a description of these rankings, not as what the platform maximises: learned predictions add errors, and the candidates that were not shown are constructed, no log says them."
    )  # fmt: skip
    if is_world:
        text += " This log comes from a generated world; the poster's w* was measured on KuaiRec's real rows and is not comparable."
    return text


def _facts(weights: Mapping[str, Any], held_out: pl.DataFrame) -> list[Fact]:
    beaten = held_out.filter(pl.col("paired_with").is_not_null(), ~pl.col("variant").is_in([HARD, POSTER]))  # fmt: skip
    won = beaten.filter(pl.col("ci_low") > 0).height
    found = weights[SOFT]
    word = "identified" if found["identified"] else NOT
    detail = "smooth loss, given predictions and candidates"
    if won < beaten.height:
        detail = "smooth loss; but some null is as good: they say nothing about the feed"
    facts = [Fact("Head weights", word, detail)]
    facts.append(Fact("Nulls beaten on test", f"{won} of {beaten.height}", "95 % interval of the difference above 0"))  # fmt: skip
    planted = _planted(weights)
    if planted is not None:
        similar = float(cosine(found["weights"], planted))
        facts.append(Fact("Cosine with the planted weights", f"{similar:.2f}", "1 = found; why not: see planted truth"))  # fmt: skip
    if found["temperature"] is not None:
        facts.append(Fact("Noise of the feed", f"{found['temperature']:.3g}", "T of softmax(w·p̂ / T)"))  # fmt: skip
    return facts


def _weight_table(weights: Mapping[str, Any], published: PublishedOptions) -> Table:
    body: list[list[object]] = []
    planted = _planted(weights)
    for j, head in enumerate(HEADS):
        line: list[object] = [head]
        for loss in (SOFT, HARD):
            found = weights[loss]
            if not found["identified"] or not found["weight_identified"][j]:
                line += [Cell(NOT, muted=True), Cell("–", muted=True)]
                continue
            low, high = found["ci"][j]
            line += [
                Cell(f"{found['weights'][j]:+.3f}", f"[{low:+.3f}, {high:+.3f}]", found["weights"][j]),
                found["sign_frequency"][j],
            ]  # fmt: skip
        line.append(published.weights[j])
        if planted is not None:
            line.append(planted[j])
        body.append(line)
    columns = ["head", "ŵ, smooth", "same sign", "ŵ, hard", "same sign", "poster's w* [S]"]
    table = plain_table("Head weights, Σ|w| = 1", [*columns, *(["planted"] if planted is not None else [])], body)  # fmt: skip
    return Table(table.caption, table.columns, table.rows, "In brackets: 95 % percentile interval over resamples of users.")  # fmt: skip


def _planted(weights: Mapping[str, Any]) -> tuple[float, ...] | None:
    """What the world ranks by, where it is known."""
    planted = weights.get("planted")
    return None if planted is None else tuple(planted)


def _null_text(results: pl.DataFrame, held_out: pl.DataFrame) -> str:
    rows = held_out.filter(pl.col("paired_with").is_not_null(), ~pl.col("variant").is_in([HARD, POSTER]))  # fmt: skip
    lost = rows.filter(~(pl.col("ci_low") > 0))["variant"].to_list()
    text = (
        "Recommenders without weights on the same test sessions and the same resamples of users: a random choice, the most popular, the user's past share of categories, single heads "
        "of either sign, all heads with equal weight. A dot right of the line lost to ŵ. "
    )
    if not lost:
        return text + "Every one of them is beaten."
    return (
        text
        + f"Not beaten: {', '.join(lost)}. A weight vector that does not beat them says nothing about the feed."
    )


def _loss_table(held_out: pl.DataFrame) -> Table:
    rows = held_out.filter(pl.col("paired_with").is_null(), metric="matching_loss").sort("value")
    body = [[r["variant"], _interval(r), r["n"]] for r in rows.iter_rows(named=True)]
    return plain_table("Matching loss on held-out sessions (lower is better)", ["ranking by", "L", "sessions"], body)  # fmt: skip


def _identification_text(weights: Mapping[str, Any]) -> str:
    shared = weights["collinearity"]
    return (
        f"Heads that move together within a session cannot be told apart by its order: condition index {shared['condition_index']:.3g} (above 30: severe), variance inflation "
        + ", ".join(f"{head} {v:.3g}" for head, v in zip(HEADS, shared["vif"], strict=True))
        + ". A direction in weight space is three angles; the landscape shows the hard loss over the first two. "
        f"Smooth loss: {weights[SOFT]['verdict']}. Hard loss: {weights[HARD]['verdict']}."
    )


def _correlation_table(weights: Mapping[str, Any]) -> Table:
    rows = [[head, *values] for head, values in zip(HEADS, weights["collinearity"]["correlation"], strict=True)]  # fmt: skip
    return plain_table("Correlation of predicted heads within sessions", ["", *HEADS], rows)


def _truth_rows(results: pl.DataFrame) -> pl.DataFrame:
    return results.filter(pl.col("cell").str.contains("probabilities, "), experiment="GV-05")


def _truth_sections(results: pl.DataFrame, figure: Mapping[str, go.Figure]) -> list[Section]:
    rows = _truth_rows(results)
    if rows.is_empty():
        return []
    body = []
    for part in rows.partition_by("cell", maintain_order=True):
        own = part.filter(variant=SOFT, metric="cosine_to_truth")
        hard = part.filter(variant=HARD, metric="cosine_to_truth")
        covers = part.filter(metric="covers_truth")
        known = part.filter(variant=SOFT, metric="identified")
        body.append(
            [
                part["cell"][0],
                _interval(own.row(0, named=True)) if own.height else Cell("–", muted=True),
                hard["value"][0] if hard.height else None,
                f"{int(covers['value'].sum())} of {covers.height}" if covers.height else "–",
                ("yes" if known["value"][0] else "no") if known.height else "–",
                part["n"].max(),
            ]
        )
    table = plain_table(
        "Cosine with the planted weights",
        ["p̂ and candidates", "smooth loss", "hard loss", "intervals that hold the truth", "identified", "sessions or requests"],
        body,
    )  # fmt: skip
    text = (
        "This world ranks by planted weights, so that each loss of accuracy can be measured by itself. With the true probabilities and the feed's own candidates per request, the noise is modelled and the "
        "estimate is held to the truth; this no real log allows. Learned p̂ add errors in variables. Constructed candidates, all that was available in place of the few that were "
        "considered, and sessions in place of requests are what is left with a real log: a feed that considers popular videos more often then looks as if it ranked by whatever head goes with popularity. "
        "Intervals account for neither: where they miss the truth, that is why. “by” names what sets are compared by."
    )  # fmt: skip
    return [Section("What learning and construction cost: planted truth", text, [figure["truth"]], [table])]  # fmt: skip


def _variant_text(candidates: CandidateOptions) -> str:
    return (
        f"The estimate takes {'items uploaded and known before the session' if candidates.catalogue == 'available' else 'all items'}"
        f"{', not seen by the user before' if candidates.exclude_seen else ''}"
        + (f", each with a chance of {candidates.share:g}" if candidates.share < 1 else "")
        + ". Each variant is fitted on validation sessions and judged on test sessions, both a common subsample; “difference” is its matching loss minus that of ŵ there."
    )


def _objective_text(published: PublishedOptions) -> str:
    w = ", ".join(f"{v:+.3f}" for v in published.category_weights)
    return (
        "Bradley–Terry: shown before never shown. Plackett–Luce: the observed order. Category cross-entropy: shares of categories. They answer other questions, and signs may differ: "
        f"the author's category optimum is {w} at a cross-entropy of {published.category_loss:.2f} [A], worse than the {3.66:.2f} of an even guess over 39 categories; at w* the author's "
        f"loss on unnormalised vectors fell from {published.loss_start:,.0f} to {published.loss_end:,.0f} [A]."
    )


def _residual_text(diagnosis: Mapping[str, Any]) -> str:
    return (
        "Every session, shown minus simulated, by weights that were fitted without its user (session_residuals, candidate_residuals; columns in the data dictionary). If what the feed did beyond "
        "its rule were as good as random, nothing known before the session would predict it. It is called a shock only if no test is rejected and each could have seen a small dependence."
        f"\n\n{diagnosis['verdict']['sentence']}."
    )


def _diagnosis_tables(diagnosis: Mapping[str, Any]) -> list[Table]:
    tests = [
        {k: row[k] for k in ("test", "residual", "r2", "r2_detectable", "p_value", "p_holm", "n", "users", "passed")}
        for row in diagnosis["tests"]
    ]  # fmt: skip
    return [
        _records("Tests of exogeneity, p by sign flips of users, Holm over all", tests),
        _records(
            "Covariates in the top and the bottom third of each residual", diagnosis["balance"]
        ),
        _records("Mean residual by burst", diagnosis["bursts"]),
    ]


def _selectivity_text(diagnosis: Mapping[str, Any]) -> str:
    return (
        "A user skips what is worth less than a threshold. Its change from the session before to the session after is regressed on the residual of the session between, both net of what was known before; "
        f"a placebo uses a later residual.\n\nFound: {diagnosis['selectivity']['sentence']}."
    )


def _debias_text(diagnosis: Mapping[str, Any]) -> str:
    found = diagnosis["debias"]
    if not found["r2"]:
        return str(found["sentence"])
    said = ", ".join(f"{head} {r2:.3f}" for head, r2 in found["r2"].items())
    return (
        "What a user has come to believe about the feed (share of a category so far, its place in sessions, its recent outcomes) is taken out of each predicted head, and the candidates are ranked "
        f"again with the same weights. Share of the heads' variance inside sessions that the beliefs explain, out of fold: {said}."
    )


def _missing_text(report: Mapping[str, int]) -> str:
    return (
        f"{report['sessions']:,} sessions in the log; {report['across_parts']:,} have rows in two parts or in none and belong to no part; {report['too_short']:,} of the others are shorter than asked for. "
        f"{report['repeats']:,} rows repeat an item inside their session and count once. Of {report['val']:,} val and {report['test']:,} test sessions {report['val_drawn']:,} and {report['test_drawn']:,} "
        f"are ranked, with {report['candidates']:,} candidates in all."
    )


def _study_table(
    results: pl.DataFrame, experiment: str, cell: str, caption: str, by: str = "variant"
) -> Table:
    """A row per variant (or group): each metric, and the difference from ŵ where there is one."""
    rows = results.filter(experiment=experiment, cell=cell)
    keys = ["metric", "split", *([] if by == "group" else ["group"])]
    columns: dict[tuple[str, ...], str] = {}
    body: dict[str, dict[str, object]] = {}
    for row in rows.iter_rows(named=True):
        paired = row["paired_with"] is not None
        part = str(row["split"]).rpartition("/")[2]
        group = "" if by == "group" or row["group"] == "all" else f" {row['group']}"
        name = f"{'difference' if paired else row['metric'].replace('_', ' ')}{group}, {part}"
        columns[(*(str(row[k]) for k in keys), str(paired))] = name
        body.setdefault(str(row[by]), {})[name] = _interval(row)
    names = list(dict.fromkeys(columns.values()))
    lines = [[key, *(line.get(n, Cell("–", muted=True)) for n in names)] for key, line in body.items()]  # fmt: skip
    return plain_table(caption, [by, *names], lines)


def _records(caption: str, records: list[dict[str, Any]]) -> Table:
    if not records:
        return Table(caption, [], [])
    return plain_table(caption, list(records[0]), [list(record.values()) for record in records])


def _without_empty(section: Section) -> Section:
    tables = [table for table in section.tables if table.rows]
    return Section(section.heading, section.text, section.figures, tables, section.facts)


def _interval(row: Mapping[str, Any]) -> Cell:
    if row["value"] is None:
        return Cell("–", muted=True)
    sign = "+" if row["paired_with"] is not None or row["metric"] == "weight" else ""
    low, high = row["ci_low"], row["ci_high"]
    detail = "" if low is None or high is None else f"[{low:{sign}.4g}, {high:{sign}.4g}]"
    return Cell(f"{row['value']:{sign}.4g}", detail, row["value"], not row["reliable"])
