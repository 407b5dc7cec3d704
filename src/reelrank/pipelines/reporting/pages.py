"""The pages of the site, as page models: frames in, headings, tables and figures out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from reelrank.evaluation.stored import answering
from reelrank.evaluation.verdicts import NOT_RUN, Question, matching
from reelrank.pipelines.reporting import drawings, published, tuned
from reelrank.pipelines.reporting import rows as kept
from reelrank.pipelines.reporting.options import (
    PublishedOptions,
    ReportingParameters,
    SystemOptions,
)
from reelrank.pipelines.reporting.words import glossary
from reelrank.reports import figures, theme
from reelrank.reports.page import Cell, DataKind, Fact, Link, Section, Table, plain_table
from reelrank.reports.panels import count, metric_title
from reelrank.reports.result_tables import JUDGED, files_table
from reelrank.reports.site import SitePage

INDEX, EXPERIMENTS, VALIDITY = "index.html", "experiments.html", "validity.html"
MODELS, GLOSSARY = "models.html", "glossary.html"
NAV = (
    Link("Overview", INDEX),
    Link("Experiments", EXPERIMENTS),
    Link("Off-policy validity", VALIDITY),
    Link("Models", MODELS),
    tuned.LINK,
    Link("Glossary", GLOSSARY),
)
OPE_SYSTEM = "ope_validity"
VALUES = kept.VALUES
OPE_METRICS = ("ncis", "snipw", "ipw", "dr", "dm", "piece-ncis", "ncis-trajectory")
COMPARABLE = {
    "exact": "exact: same public data, same rule known",
    "approximate": "approximate: same public data, some rule unknown",
    "not_comparable": "not comparable: private or unavailable data",
}


@dataclass(frozen=True, slots=True)
class Site:
    """All that pages are drawn from."""

    rows: pl.DataFrame  # every stored row, with its namespace
    shown: pl.DataFrame  # newest rows of systems
    older: pl.DataFrame  # their history
    claims: pl.DataFrame
    verdicts: pl.DataFrame
    questions: Mapping[str, Question]
    own: Sequence[tuple[str, str]]  # (experiment, namespace) whose rows answer it
    data: Mapping[str, Sequence[Mapping[str, Any]]]  # source → kinds, the reported one first
    studies: Sequence[Mapping[str, Any]]  # of tuning
    licences: Mapping[str, str]
    options: ReportingParameters

    def system(self, namespace: str) -> SystemOptions:
        """What is said of a system; of an unknown one its name."""
        named = SystemOptions(title=namespace.replace("_", " "), about="No description is given.")
        return self.options.systems.get(namespace, named)

    def source_title(self, source: str) -> str:
        """A data set as readers know it."""
        known = self.options.sources.get(source)
        return known.title if known else source


def system_path(namespace: str) -> str:
    """Address of a system's page."""
    return f"system-{namespace}.html"


def experiment_path(name: str) -> str:
    """Address of an experiment's page."""
    return f"experiment-{name.lower()}.html"


def source_path(source: str) -> str:
    """Address of a data set's page."""
    return f"data-{source}.html"


def rows_path(name: str) -> str:
    """Address of a file of result rows."""
    return f"rows/{name}.csv"


def row_files(site: Site) -> dict[str, str]:
    """CSV files of result rows: shown and older ones of each system, and those of each experiment."""
    parts: dict[str, pl.DataFrame] = {}
    for namespace in site.shown["namespace"].unique().to_list():
        parts[namespace] = site.shown.filter(namespace=namespace)
        history = site.older.filter(namespace=namespace)
        if history.height:
            parts[f"{namespace}-older"] = history
    for name in site.verdicts.filter(pl.col("verdict") != NOT_RUN)["experiment"].unique().to_list():
        parts[f"experiment-{name.lower()}"] = experiment_rows(site, name)
    return {rows_path(name): part.write_csv() for name, part in parts.items()}


def all_pages(site: Site) -> list[SitePage]:
    """Every page."""
    return [
        index_page(site),
        *(system_page(site, n) for n in sorted(site.shown["namespace"].unique().to_list())),
        experiments_page(site),
        *(experiment_page(site, name) for name in _run(site)),
        *(data_page(site, source) for source in site.data),
        validity_page(site),
        models_page(site),
        tuned.tuning_page(site.studies, "real" if site.options.kind == "real" else "world"),
        SitePage(GLOSSARY, "Glossary", "What the words and abbreviations mean.", [Section("Terms", tables=[glossary()])]),
    ]  # fmt: skip


# The front page


def index_page(site: Site) -> SitePage:
    """What ran, on what, and what may be believed."""
    options = site.options
    if site.rows.is_empty():
        text = (
            f"No result rows were found under {options.data_root}/08_reporting/results/{options.kind}. "
            "Run a system first, for example: kedro run --pipelines ruie; then kedro run --pipelines reporting."
        )
        empty = [Section("Nothing has run yet", text), _data_section(site)]
        return SitePage(INDEX, "reelrank: results", "No results yet.", empty)
    shown, failed = site.shown, site.claims.filter(pl.col("failed") > 0)
    unreliable = shown.filter(~pl.col("reliable")).height
    read = site.verdicts.filter("newest", pl.col("verdict") != NOT_RUN)
    facts = [
        Fact("systems", f"{shown['namespace'].n_unique()}", _source_titles(site, shown)),
        Fact("numbers shown", f"{shown.height:,}", f"{site.older.height:,} more of earlier runs"),
        Fact("not reliable", f"{unreliable:,}", f"of {shown.height:,}; marked †, not to be ranked"),
        Fact("claims that failed", f"{failed.height}", f"of {site.claims.height} judged"),
        Fact("experiments run", f"{read['experiment'].n_unique()}", f"of {len(site.questions)} in the registry"),
    ]  # fmt: skip
    sections = [
        Section("At a glance", _believe(site), facts=facts),
        Section(
            "What ran",
            "Each line is one system on one data set; the newest run of every cell is shown, and rows of two versions of the code stay in tables of their own.",
            tables=[_runs_table(site)],
        ),
        *_claims_sections(site, site.claims),
        _verdict_section(site),
        _data_section(site),
    ]
    return SitePage(
        INDEX,
        "reelrank: results",
        f"Ranking policies from logs of short videos: every result under data/08_reporting/results/{options.kind}.",
        sections,
        _kind(site.rows),
    )


def _believe(site: Site) -> str:
    kinds = site.shown["data_kind"].unique().to_list()
    parts = []
    if "world" in kinds:
        parts.append(
            "Numbers from a generated world carry the badge “synthetic data”: they check the methods against a known truth and say nothing about real users."
        )
    if "real" in kinds:
        parts.append("Numbers from real rows are about those logs alone.")
    parts.append(
        "† marks a number that rests on too little, or on weights that are too uneven; it must not be ranked. An interval that crosses 0 is no evidence of a difference. "
        "A paper's number is a reference line, never a bar to pass."
    )
    return "\n\n".join(parts)


def _runs_table(site: Site) -> Table:
    body: list[list[object]] = []
    for (namespace, source), part in site.shown.group_by("namespace", "source", maintain_order=True):  # fmt: skip
        old = site.older.filter(namespace=namespace, source=source)["run_id"].unique()
        newest = part.filter(pl.col("run_id") == pl.col("run_id").max())
        title = site.system(str(namespace)).title
        body.append(
            [
                Cell(title, sort=title, href=system_path(str(namespace))),
                Cell(site.source_title(str(source)), sort=str(source), href=source_path(str(source)) if source in site.data else ""),
                "synthetic" if newest["data_kind"][0] == "world" else "real",
                newest["run_id"][0],
                kept.listed(newest["code_version"]),
                kept.listed(part["seed"]),
                part["variant"].n_unique(),
                part.height,
                part.filter(~pl.col("reliable")).height,
                len(set(old) - set(part["run_id"].unique())),
            ]
        )  # fmt: skip
    columns = ["system", "data set", "data", "newest run", "code version", "seeds", "models", "numbers", "not reliable", "earlier runs"]  # fmt: skip
    return plain_table("Systems and data sets", columns, body)


def _claims_sections(site: Site, claims: pl.DataFrame) -> list[Section]:
    heading = "Claims of planted truth"
    if claims.is_empty():
        return [Section(heading, "No claims have been tested here; make claims does so.")]
    failed, held = claims.filter(pl.col("failed") > 0), claims.filter(failed=0)
    text = (
        f"Worlds with a planted truth test what the code claims, over several seeds: {claims.height} claims were judged, {failed.height} failed at least once. "
        "A claim that fails is a finding, and stays."
    )
    bad = [_claims_table(site, failed, "Claims that failed")] if failed.height else []
    good = [_claims_table(site, held, "Claims that held")] if held.height else []
    return [Section(heading, text, tables=bad), *([Section("Claims that held", tables=good, folded=True)] if good else [])]  # fmt: skip


def _claims_table(site: Site, claims: pl.DataFrame, caption: str) -> Table:
    names = ["system", "source", "claim", "held", "failed", "low", "high", "n", "code_version", "run_id"]  # fmt: skip
    columns = ["system", "data set", "claim", "held", "failed", "lowest value", "highest value", "least n", "code version", "run"]  # fmt: skip
    body = [[site.system(s).title, site.source_title(d), *rest] for s, d, *rest in claims.select(names).rows()]  # fmt: skip
    return plain_table(caption, columns, body)


def _verdict_section(site: Site) -> Section:
    rows = site.verdicts.filter("newest", pl.col("verdict") != NOT_RUN)
    waiting = site.verdicts.filter(verdict=NOT_RUN).height
    text = f"{rows.height} experiments have rows; {waiting} have not been run."
    tables = [_verdict_table(rows, "Verdicts")] if rows.height else []
    return Section("Experiments", text, tables=tables, links=[Link("All experiments", EXPERIMENTS)])


def _data_section(site: Site) -> Section:
    body: list[list[object]] = []
    for source, kinds in site.data.items():
        newest = kinds[0]
        report = newest["report"]
        title = site.source_title(source)
        body.append(
            [
                Cell(title, sort=title, href=source_path(source)),
                _kind_of(report),
                report["steps"][0]["rows"] if report else None,
                report["steps"][-1]["rows"] if report else None,
                report.get("users") if report else None,
                report.get("items") if report else None,
            ]
        )
    columns = ["data set", "data", "rows read", "canonical rows", "users", "items"]
    return Section("Data sets", tables=[plain_table("Data sets on disk", columns, body)] if body else [])  # fmt: skip


def _kind_of(report: Mapping[str, Any] | None) -> str:
    if report is None:
        return "not on disk"
    return "synthetic" if report.get("kind") == "world" else "real"


# A page per system


def system_page(site: Site, namespace: str) -> SitePage:
    """Facts, paper against ours, figures, tables, claims and history of one system."""
    system, rows = site.system(namespace), site.shown.filter(namespace=namespace)
    history = site.older.filter(namespace=namespace)
    newest = rows.filter(pl.col("run_id") == pl.col("run_id").max())
    unreliable = rows.filter(~pl.col("reliable")).height
    facts = [
        Fact("numbers", f"{rows.height:,}", f"{unreliable:,} not reliable"),
        Fact("models", f"{rows['variant'].n_unique()}", f"seeds {kept.listed(rows['seed'])}"),
        Fact("data", _source_titles(site, rows), "generated" if _kind(rows) == "world" else "real rows"),
        Fact("newest run", str(newest["run_id"][0])[:10], f"code {kept.listed(newest['code_version'])}"),
    ]  # fmt: skip
    links = [Link("All numbers shown here, as CSV", rows_path(namespace))]
    if history.height:
        links.append(Link("Numbers of earlier runs, as CSV", rows_path(f"{namespace}-older")))
    experiments = [n for n in _run(site) if n in set(rows["experiment"].drop_nulls())]
    links += [Link(f"Experiment {name}", experiment_path(name)) for name in experiments]
    sections = [
        Section("What it is", _about(system), facts=facts, links=links),
        *_paper_sections(site, namespace, rows),
        *_headline_sections(site, namespace, rows),
    ]
    claims = site.claims.filter(system=str(rows["system"][0]))
    if claims.height:
        sections += _claims_sections(site, claims)
    if history.height:
        sections.append(_history_section(history, system))
    return SitePage(system_path(namespace), system.title, system.about, sections, _kind(rows))


def _about(system: SystemOptions) -> str:
    limits = f"Limits: {system.limits}" if system.limits else ""
    return "\n\n".join(p for p in (f"Published as: {system.paper}" if system.paper else "", limits) if p)  # fmt: skip


def _headline_sections(site: Site, namespace: str, rows: pl.DataFrame) -> list[Section]:
    """What is drawn first, and the whole block that it stands in."""
    wanted = {"paired_with": ("*",), **site.system(namespace).headline}
    first = pl.concat([matching(rows, site.system(namespace).headline), matching(rows, wanted)]).unique(maintain_order=True)  # fmt: skip
    if not site.system(namespace).headline or first.is_empty():
        table = drawings.long_table(rows, "Numbers", site.options.most_rows, rows_path(namespace))
        return [Section("Numbers", "No headline is named for this system, or no row answers it.", tables=[table])]  # fmt: skip
    sections = []
    for name, part in drawings.blocks(first):
        whole = rows.join(part.select(drawings.APART).unique(), on=drawings.APART, how="semi", nulls_equal=True)  # fmt: skip
        heading = f"Results: {name}" if name else "Results"
        origin = f"Code version {part['code_version'][0]}, run {part['run_id'][0]}."
        sections.append(
            Section(
                heading,
                f"{origin} Dots and bars carry 95 % intervals; pale ones are not reliable. Paired differences compare two models on the same rows.",
                figures=drawings.headline_figures(part, site.options.most_marks),
                tables=drawings.tables_of(whole, heading, site.options.most_rows, rows_path(namespace)),
            )
        )  # fmt: skip
    return sections


def _history_section(history: pl.DataFrame, system: SystemOptions) -> Section:
    """Earlier runs, each for itself."""
    runs = (
        history.group_by("run_id", "code_version")
        .agg(
            pl.col("config_hash").unique().sort().str.join(", "),
            pl.col("seed").unique().sort().cast(pl.String).str.join(", "),
            rows=pl.len(),
        )
        .sort("run_id", "code_version", descending=True)
    )
    tables = [plain_table("Earlier runs", ["run", "code version", "config hash", "seeds", "numbers"], runs.rows())]  # fmt: skip
    first = matching(history, system.headline) if system.headline else history.clear()
    for (run_id, version), part in first.group_by("run_id", "code_version", maintain_order=True):
        caption = f"Headline of run {run_id}, code version {version}"
        tables.append(drawings.long_table(part, caption, 60, ""))
    text = "Numbers that a newer run has replaced, by version of the code. They are in no table and in no mean above."
    return Section("Earlier runs and versions of the code", text, tables=tables, folded=True)


def _paper_sections(site: Site, namespace: str, rows: pl.DataFrame) -> list[Section]:
    """Paper against ours, a section for all tables that differ from ours for the same reasons."""
    together: dict[tuple[str, str, str, str], list[Table]] = {}
    for table in site.options.published:
        if namespace not in table.systems:
            continue
        parts = rows.partition_by("source", maintain_order=True) if table.where else [rows.clear()]
        for part in parts:
            source = "" if part.is_empty() else site.source_title(str(part["source"][0]))
            key = (table.data, source, table.comparability, table.why)
            together.setdefault(key, []).append(_paper_table(table, part))
    sections = [
        Section(
            f"Paper against ours: {data}{f', beside {source}' if source else ', without a counterpart'}",
            f"{f'Beside ours on {source}. ' if source else ''}Comparability: {COMPARABLE[comparability]}. Why they may differ: {why}",
            tables=tables,
        )
        for (data, source, comparability, why), tables in together.items()
    ]
    remarks = [[r.says, r.found] for r in site.options.remarks if namespace in r.systems]
    if remarks:
        said = plain_table("Said in words", ["the paper says", "its own numbers say"], remarks)
        sections.append(
            Section("What the paper says in words", tables=[replace(said, measured=False)])
        )
    if not sections:
        return [Section("Paper against ours", "No published number is known for this system.")]
    return sections


def _paper_table(table: PublishedOptions, rows: pl.DataFrame) -> Table:
    found = published.against(rows, table)
    lost = found.filter(pl.col("printed").is_null()).height
    compared = found.filter(pl.col("difference").is_not_null()).height
    change = table.statistic == "relative_percent"
    columns = ["model", "what", f"paper{' (change, %)' if change else ''}", f"ours{' (change, %)' if change else ''}",
               "ours − paper", "in % of the paper's", "n", "comparability"]  # fmt: skip
    note = f"Printed: {found.height}; of these beside a number of ours: {compared}."
    if lost:
        note += f" Lost or not in the text at hand: {lost}; bounds follow if the cell was its column's second best."
    note += " In brackets: 95 % interval; where ours is a change the baseline counts as known."
    body = [_paper_row(row, table) for row in found.iter_rows(named=True)]
    return Table(f"{table.title}: paper against ours", columns, body, note, measured=compared > 0)


def _paper_row(row: Mapping[str, Any], table: PublishedOptions) -> list[Cell]:
    model = theme.variant_label(row["model"])
    if table.baseline:
        model += f" against {theme.variant_label(table.baseline)}"
    column = row["column"].replace("_", " ")
    return [
        Cell(model, sort=model),
        Cell(column, sort=column),
        _printed_cell(row),
        _ours_cell(row, table),
        _gap_cell(row["difference"], ""),
        _gap_cell(row["relative"], " %"),
        Cell("–", muted=True) if row["n"] is None else Cell(f"{row['n']:,}", sort=row["n"]),
        Cell(table.comparability.replace("_", " "), sort=table.comparability),
    ]


def _printed_cell(row: Mapping[str, Any]) -> Cell:
    if row["printed"] is not None:
        return Cell(drawings.number(row["printed"]), sort=row["printed"])
    if row["bound_low"] is None:
        return Cell("lost", "not in the text at hand", muted=True)
    bounds = f"between {drawings.number(row['bound_low'])} and {drawings.number(row['bound_high'])}"
    return Cell("lost", f"{bounds}. {row['note']}".removesuffix(". "), muted=True)


def _ours_cell(row: Mapping[str, Any], table: PublishedOptions) -> Cell:
    if row["answers"] > 1:
        return Cell("ambiguous", f"{row['answers']} rows fit; narrow `where`", muted=True)
    if row["answers"] == 0:
        return Cell("not run" if table.where else "no counterpart", muted=True)
    return drawings.value_cell({**row, "value": row["ours"]})


def _gap_cell(value: float | None, unit: str) -> Cell:
    return Cell("–", muted=True) if value is None else Cell(f"{drawings.number(value, '+')}{unit}", sort=value)  # fmt: skip


# Experiments


def _run(site: Site) -> list[str]:
    found = set(site.verdicts.filter(pl.col("verdict") != NOT_RUN)["experiment"])
    return [name for name in site.questions if name in found]


def experiment_rows(site: Site, name: str) -> pl.DataFrame:
    """Rows that answer an experiment, the newest run of every cell and version of the code."""
    rows = answering(site.rows, site.own).filter(experiment=name)
    cell = ("experiment", "cell", "system", "source", "track", "code_version")
    return rows.filter(pl.col("run_id") == pl.col("run_id").max().over(cell))


def experiments_page(site: Site) -> SitePage:
    """All questions: verdicts of those that ran, and a list of those that did not."""
    found = site.verdicts.filter("newest", pl.col("verdict") != NOT_RUN)
    waiting = site.verdicts.filter(verdict=NOT_RUN)
    counts = found["verdict"].value_counts(sort=True).rows()
    facts = [Fact(str(word), str(n), "experiments") for word, n in counts]
    facts.append(Fact("not run", str(waiting.height), "experiments"))
    names = ["experiment", "question", "status"]
    body = [[e, q, s or "no row of it was found"] for e, q, s in waiting.select(names).rows()]
    sections = [
        Section(
            "Verdicts",
            "Each experiment has a rule that was written before its numbers. holds: the whole 95 % interval lies where the rule asks; fails: wholly elsewhere; undecided: in between; "
            "reported: numbers without a rule.",
            facts=facts,
            tables=[_verdict_table(found, "Experiments that have rows")] if found.height else [],
        )
    ]
    if body:
        sections.append(Section("Not run", tables=[plain_table("Experiments without rows", ["experiment", "question", "why"], body)]))  # fmt: skip
    return SitePage(EXPERIMENTS, "Experiments", "Questions, and what the numbers say to each.", sections, _kind(site.rows))  # fmt: skip


def _verdict_table(rows: pl.DataFrame, caption: str) -> Table:
    body = [
        [
            Cell(row["experiment"], sort=row["experiment"], href=experiment_path(row["experiment"])),
            row["verdict"],
            row["question"],
            row["sentence"],
            "synthetic" if "world" in row["data_kind"] else "real",
            row["rows"],
            row["code_version"],
        ]
        for row in rows.iter_rows(named=True)
    ]  # fmt: skip
    columns = ["experiment", "verdict", "question", "what was found", "data", "numbers", "code version"]  # fmt: skip
    return plain_table(caption, columns, body)


def experiment_page(site: Site, name: str) -> SitePage:
    """The verdict, the numbers that it rests on, and all others; each version of the code for itself."""
    asked, rows = site.questions[name], experiment_rows(site, name)
    verdicts = site.verdicts.filter(experiment=name)
    first = verdicts.row(0, named=True)
    facts = [
        Fact("verdict", first["verdict"], "newest version of the code"),
        Fact("numbers", f"{first['rows']:,}", f"in {count(rows.filter(code_version=first['code_version'])['cell'].n_unique(), 'cell')}"),
        Fact("data", _source_titles(site, rows), "generated" if "world" in first["data_kind"] else "real rows"),
        Fact("newest run", first["run_id"][:10], f"code {first['code_version']}"),
    ]  # fmt: skip
    text = f"Rule: {asked.reading.rule}.\n\nFound: {first['sentence']}."
    if asked.status:
        text += f"\n\nStatus: {asked.status}."
    csv = rows_path(f"experiment-{name.lower()}")
    sections = [Section("Verdict", text, facts=facts, links=[Link("All numbers, as CSV", csv)])]
    for row in verdicts.iter_rows(named=True):
        part = rows.filter(code_version=row["code_version"])
        sections += _version_sections(site, name, part, csv, newest=row["newest"], sentence=row["sentence"])  # fmt: skip
    return SitePage(experiment_path(name), f"{name}: {asked.question}", f"An experiment of the registry, asked by: {asked.asked_by}.", sections, _kind(rows))  # fmt: skip


def _version_sections(
    site: Site, name: str, rows: pl.DataFrame, csv: str, *, newest: bool, sentence: str
) -> Iterator[Section]:
    version = rows["code_version"][0]
    most = site.options.most_rows
    if not newest:
        table = drawings.long_table(rows, f"{name}, code version {version}", most, csv)
        yield Section(f"Earlier: code version {version}", f"Found then: {sentence}", tables=[table], folded=True)  # fmt: skip
        return
    answers = pl.concat([rows.clear(), *_claimed(site.questions[name], rows)]).unique(maintain_order=True)  # fmt: skip
    if answers.height:
        text = "The numbers that the rule reads, each with its 95 % interval where it has one."
        figures_ = drawings.interval_figures(answers, name, site.options.most_marks)
        table = drawings.long_table(answers, f"{name}: numbers that the rule reads", most, csv)
        yield Section("What the verdict rests on", text, figures_, [table])
    rest = rows.join(answers, on=rows.columns, how="anti", nulls_equal=True)
    if rest.height:
        figures_ = [] if answers.height else drawings.interval_figures(rest, name, site.options.most_marks)  # fmt: skip
        table = drawings.long_table(rest, f"{name}: all other numbers" if answers.height else f"{name}: numbers", most, csv)  # fmt: skip
        yield Section("All other numbers" if answers.height else "Numbers", "", figures_, [table])


def _claimed(asked: Question, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Rows that its claims name, and their counterparts."""
    for claim in asked.reading.claims:
        yield matching(rows, claim.where)
        if claim.minus is not None:
            yield matching(rows, {**claim.where, **claim.minus})


# Data sets


def data_page(site: Site, source: str) -> SitePage:
    """Rows from raw files to model input, marginals, and the world beside real rows where both are there."""
    known = site.options.sources.get(source)
    first, kinds = site.data[source][0], site.data[source]
    there = [part for part in kinds if part["report"] or part["marginals"]]
    title = site.source_title(source)
    about = known.about if known else "No description is given."
    licence = f"Licence: {site.licences[source]}." if source in site.licences else ""
    sections = [Section("What it is", f"{about}\n\n{licence}", links=_systems_on(site, source))]
    if not there:
        text = (
            f"No table of {title} is on disk for kind {first['kind']}: its ingestion has not run."
        )
        return SitePage(source_path(source), title, about, [*sections, Section("Nothing on disk", text)])  # fmt: skip
    for part in there:
        sections += _kind_sections(part)
    rated = [(part["kind"], part["marginals"]["rates"]) for part in there if part["marginals"] and part["marginals"]["rates"]]  # fmt: skip
    quantiles = [(p["kind"], q) for p in there if p["marginals"] for q in p["marginals"]["quantiles"]]  # fmt: skip
    if rated:
        both = "Generated and real rows side by side. " if len(rated) > 1 else f"Only kind {rated[0][0]} is on disk, so there is nothing to set beside it. "  # fmt: skip
        rates = [[kind, r["feedback"].replace("_", " "), _rate_cell(r), r["n"]] for kind, rates in rated for r in rates]  # fmt: skip
        columns = ["what", *(["kind"] if len(rated) > 1 else []), "10 % below", "median", "90 % below", "n"]  # fmt: skip
        spread = [[q["what"], *([kind] if len(rated) > 1 else []), *(_quantile_cell(q[p]) for p in ("p10", "p50", "p90")), q["n"]] for kind, q in quantiles]  # fmt: skip
        sections.append(
            Section(
                "Marginals",
                f"{both}Feedback that a source does not log is left out, never counted as zero.",
                [drawings.feedback_rates(rated)],
                [plain_table("How often each feedback is given", ["kind", "feedback", "share of exposures", "n"], rates),
                 plain_table("Quantiles", columns, spread)],
            )
        )  # fmt: skip
    else:
        sections.append(Section("Marginals", "The table of interactions is missing, so nothing can be said of its columns."))  # fmt: skip
    world = any(_kind_of(part["report"]) == "synthetic" for part in there)
    return SitePage(source_path(source), title, about, sections, "world" if world else "real")


def _kind_sections(part: Mapping[str, Any]) -> Iterator[Section]:
    report, kind = part["report"], part["kind"]
    sizes = [
        [t["layer"], t["table"].replace("_", " "), Cell("missing", muted=True) if t["rows"] is None else t["rows"]]
        for t in part["tables"]
    ]  # fmt: skip
    tables = [plain_table(f"Tables on disk ({kind})", ["layer", "table", "rows"], sizes)] if sizes else []  # fmt: skip
    if report is None:
        yield Section(f"From raw files to model input ({kind})", "The report of ingestion is missing.", tables=tables)  # fmt: skip
        return
    yield Section(
        f"From raw files to model input ({kind})",
        "Rows that are left after each step; nothing is dropped without being counted.",
        [figures.ingestion_steps(report)],
        [plain_table(f"Rows after each step ({kind})", ["step", "rows"], [[s["step"], s["rows"]] for s in report["steps"]]),
         files_table(report), *tables],
    )  # fmt: skip


def _rate_cell(rate: Mapping[str, Any]) -> Cell:
    return drawings.value_cell({**rate, "reliable": True})


def _quantile_cell(value: float) -> Cell:
    return Cell(drawings.number(value), sort=value)


def _systems_on(site: Site, source: str) -> list[Link]:
    names = site.shown.filter(source=source)["namespace"].unique().sort().to_list()
    return [Link(f"Results: {site.system(n).title}", system_path(n)) for n in names]


# Off-policy validity


def validity_page(site: Site) -> SitePage:
    """Whether the evaluation itself may be believed: verdicts on OP-01…, coverage, and flags of every off-policy value."""
    verdicts = site.verdicts.filter("newest", pl.col("experiment").str.starts_with("OP-"))
    found = verdicts.filter(pl.col("verdict") != NOT_RUN)
    rows = site.shown.filter(namespace=OPE_SYSTEM)
    subtitle = "May an estimate that was made from another policy's log be believed?"
    sections = []
    if rows.is_empty():
        sections.append(Section("Not studied", "No rows of ope_validity were found: kedro run --pipelines ope_validity makes them."))  # fmt: skip
    if found.height:
        sections.append(Section("Verdicts", tables=[_verdict_table(found, "Questions to the evaluation")]))  # fmt: skip
    covered = rows.filter(VALUES & pl.col("metric").eq("ci_coverage"))
    for name, part in drawings.blocks(covered):
        sections.append(_coverage_section(name, part, site))
    sections += _flag_sections(site)
    return SitePage(VALIDITY, "Off-policy validity", subtitle, sections, _kind(rows if rows.height else site.shown))  # fmt: skip


def _coverage_section(name: str, rows: pl.DataFrame, site: Site) -> Section:
    """Coverage at the largest log."""
    size = pl.col("group").str.extract(r"n=(\d+)").cast(pl.Int64)
    largest = rows.filter(size.eq(size.max()) | size.max().is_null())
    judged = largest.filter(pl.col("weighting").is_in(["snipw", "dr"]))
    caption = f"Coverage of 95 % intervals: {name or 'all'}, {largest['group'][0]}"
    drawn = drawings.interval_figures(judged, f"Coverage, {name}", site.options.most_marks) if judged.height else []  # fmt: skip
    text = "Share of repeated logs whose 95 % interval holds the planted value; n counts the logs, and the interval of the share itself is binomial. About 0.95 is right: the line in the figure."
    for figure in drawn:
        figure.add_vline(x=0.95, line={"color": theme.NEUTRAL, "width": 1.5})
    tables = [
        replace(t, note=t.note.replace(JUDGED, "In brackets: 95 % binomial interval. n: repeated logs."))
        for t in drawings.tables_of(largest, caption, site.options.most_rows, rows_path(OPE_SYSTEM))
    ]  # fmt: skip
    return Section(f"Do the intervals hold? {name}", text, drawn, tables)


def _flag_sections(site: Site) -> list[Section]:
    """How many off-policy values of every system may be ranked."""
    values = site.shown.filter(VALUES, pl.col("metric").is_in(OPE_METRICS), pl.col("namespace") != OPE_SYSTEM)  # fmt: skip
    if values.is_empty():
        return []
    counts = values.group_by("namespace", "source", "metric", "code_version", maintain_order=True).agg(
        n=pl.len(), unreliable=(~pl.col("reliable")).sum()
    )  # fmt: skip
    body = [[Cell(site.system(s).title, sort=s, href=system_path(s)), *rest] for s, *rest in counts.rows()]  # fmt: skip
    text = "A value is not reliable if fewer than 200 rows or one in a hundred count effectively, one row has over 5 % of the weight, or the mean weight is further than 0.2 from 1."
    columns = ["system", "data set", "estimator", "code version", "values", "not reliable"]
    return [Section("Off-policy values of the systems", text, tables=[plain_table("Values that may not be ranked", columns, body)])]  # fmt: skip


# Models


def models_page(site: Site) -> SitePage:
    """A card per trained model."""
    cards = site.shown.filter(VALUES, pl.col("variant").is_in(list(site.options.models)))
    sections = [_card(site, part) for part in cards.partition_by("namespace", "variant", maintain_order=True)]  # fmt: skip
    if not sections:
        sections = [Section("No model", "No trained model has result rows yet.")]
    return SitePage(MODELS, "Model cards", "What each trained model is meant for, what it learnt from, and what it must not be taken for.", sections, _kind(cards))  # fmt: skip


def _card(site: Site, rows: pl.DataFrame) -> Section:
    namespace, variant = rows.row(0, named=True)["namespace"], rows.row(0, named=True)["variant"]
    system = site.system(namespace)
    generated = _kind(rows) == "world"
    sources = rows["source"].unique().sort().to_list()
    licences = "; ".join(f"{site.source_title(s)}: {site.licences.get(s, 'not known')}" for s in sources)  # fmt: skip
    first = matching(rows, system.headline) if system.headline else rows.clear()
    told = "; ".join(
        f"{metric_title(r['metric'], r['group'], r['weighting'])} {drawings.value_cell(r).text} {drawings.value_cell(r).detail} (n = {r['n']:,})"
        for r in first.head(4).iter_rows(named=True)
    )
    unreliable = rows.filter(~pl.col("reliable")).height
    body: list[list[object]] = [
        ["intended use", system.use or "study of the method; nothing else was asked of it"],
        ["trained on", f"{', '.join(map(site.source_title, sources))}{' (generated world)' if generated else ''}"],
        ["licence of the data", licences + ("; generated rows are under no licence of the data set" if generated else "")],
        ["measured", told or "see the system's page"],
        ["seeds", kept.listed(rows["seed"])],
        ["run and code version", f"{kept.listed(rows['run_id'])}; {kept.listed(rows['code_version'])}"],
        ["limits", " ".join(filter(None, [system.limits, f"{unreliable} of its {rows.height} numbers are not reliable.", "Nothing is known about real users." if generated else ""]))],
    ]  # fmt: skip
    heading = f"{theme.variant_label(variant)} ({system.title})"
    return Section(heading, site.options.models[variant], tables=[plain_table(f"Card of {heading}", ["about", "this model"], body)], links=[Link(f"Results: {system.title}", system_path(namespace))])  # fmt: skip


def _source_titles(site: Site, rows: pl.DataFrame) -> str:
    return ", ".join(map(site.source_title, rows["source"].unique().sort()))


def _kind(rows: pl.DataFrame) -> DataKind:
    return "world" if rows["data_kind"].eq("world").any() else "real"
