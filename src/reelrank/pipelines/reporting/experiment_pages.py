"""The registry and a page per experiment: rule, verdict, the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from reelrank.evaluation.stored import answering
from reelrank.evaluation.verdicts import NOT_RUN, Question, matching
from reelrank.pipelines.reporting import drawings
from reelrank.pipelines.reporting.site_model import (
    EXPERIMENTS,
    Site,
    experiment_path,
    kind_of_rows,
    rows_path,
    source_titles,
)
from reelrank.reports.page import Cell, Fact, Link, Section, Table, plain_table
from reelrank.reports.panels import count
from reelrank.reports.site import SitePage


def experiments_run(site: Site) -> list[str]:
    """Ids that have rows, in the order of the registry."""
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
            tables=[verdict_table(found, "Experiments that have rows")] if found.height else [],
        )
    ]
    if body:
        sections.append(Section("Not run", tables=[plain_table("Experiments without rows", ["experiment", "question", "why"], body)]))  # fmt: skip
    return SitePage(EXPERIMENTS, "Experiments", "Questions, and what the numbers say to each.", sections, kind_of_rows(site.rows))  # fmt: skip


def verdict_table(rows: pl.DataFrame, caption: str) -> Table:
    """A line per verdict."""
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
        Fact("data", source_titles(site, rows), "generated" if "world" in first["data_kind"] else "real rows"),
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
    return SitePage(experiment_path(name), f"{name}: {asked.question}", f"An experiment of the registry, asked by: {asked.asked_by}.", sections, kind_of_rows(rows))  # fmt: skip


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
