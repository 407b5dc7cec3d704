"""What the words and abbreviations of the site mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from reelrank.reports.page import Cell, Section, Table

GLOSSARY = {
    "AP": "Average precision: the mean of precision at each positive, in order of the scores.",
    "[A]": "A value of the paper's public code.",
    "[D]": "A choice of this project.",
    "[R]": "A value read elsewhere.",
    "[S]": "A value that the paper states.",
    "A/A": "A comparison of a policy with itself; whatever it finds is chance.",
    "AUC": "Area under the ROC curve: how often a positive is scored above a negative. 0.5 is chance.",
    "bandit value": "Mean reward if the policy chose anew in every logged context. Not the value of whole sessions.",
    "BC": "Behaviour cloning: imitation of the logging policy.",
    "bias": "Mean error of an estimate: how far it is off on average, with its sign.",
    "cell": "One setting of an experiment's grid.",
    "clip rate": "Share of importance weights that were cut at the cap.",
    "code version": "Version of the package and a hash of its sources. Numbers of two versions are never mixed in a table.",
    "coverage": "Of intervals: the share that holds the true value (95 % expected). Of recommendations: the share of items shown at least once.",
    "DM": "Direct method: the mean of a reward model's predictions under the policy.",
    "DR": "Doubly robust: a reward model corrected by weighted residuals.",
    "DR-OS": "DR with shrunken weights.",
    "ECE": "Expected calibration error: mean distance of predicted and observed rates.",
    "ESS": "Effective sample size: how many equally weighted rows the weighted log is worth.",
    "entropy": "How evenly the shown items are spread; 0 if always the same one.",
    "F1": "Harmonic mean of precision and recall.",
    "GAUC": "AUC within each user (or other group), averaged over the groups.",
    "Gini": "Inequality of exposure over items: 0 all alike, 1 all to one item.",
    "GXAUC": "XAUC within each user, averaged.",
    "Holm": "A correction of p values for having asked many questions at once.",
    "HR": "Hit rate: the share of lists whose first K places hold the item that was wanted.",
    "IPW": "Inverse propensity weighting: the mean of rewards, each weighted by how much likelier the policy is to choose it.",
    "K": "Length of the list that is judged.",
    "KL": "Kullback–Leibler divergence: how far one distribution is from another.",
    "log loss": "Mean negative log-likelihood of what happened.",
    "LTR": "Learning to rank: supervised ordering.",
    "macro": "Plain mean over groups: a small one counts as much as a large one.",
    "MAE": "Mean absolute error.",
    "matching loss": "How far a weighted ranking's picks are from the items that the feed showed.",
    "micro": "Mean over rows: a large group counts more.",
    "MIPS": "Marginalised weights: propensities of categories in place of items.",
    "MRR": "Mean reciprocal rank: the mean of 1/place of the wanted item.",
    "MSE": "Mean squared error.",
    "n": "How many rows, lists, users or repetitions a number rests on.",
    "NCIS": "Normalised capped importance sampling: the weighted mean of rewards, weights cut at a cap.",
    "NDCG": "Normalised discounted cumulative gain: hits count less the lower they stand; 1 is the best order.",
    "novelty": "Mean surprise of the shown items: rare ones count more.",
    "off-policy": "Judging a policy by a log that another policy wrote.",
    "p": "Probability of a difference at least as large if there were none; two-sided, bootstrap.",
    "paired": "Both models on the same rows and the same resamples.",
    "PieceNCIS": "NCIS within groups of similar contexts, put together again.",
    "propensity": "Probability with which the logging policy chose what it chose.",
    "Q": "Expected discounted reward from here on, if this is chosen.",
    "RM": "Replay method: the mean over rows where both policies choose alike.",
    "RMSE": "Root of the mean squared error.",
    "SG-DR": "DR with weights pulled towards 1.",
    "SG-IPW": "IPW with weights pulled towards 1.",
    "SNDR": "DR divided by the mean weight.",
    "SNIPW": "IPW divided by the mean weight.",
    "switch-DR": "DR that trusts the reward model where the weight is large.",
    "synthetic": "From a generated world, whose truth is known. It says nothing about real users.",
    "track": "honest: the rules of this project. paper_literal: the paper's own rule, leaks included.",
    "true value": "What a policy is really worth when it is rolled out; known in a generated world only.",
    "WTG": "Watch-time gain: watch time beyond what the video's length explains.",
    "γ": "Discount: what a reward one step later is worth.",
    "κ": "Weight of the bonus for uncertainty.",
    "π": "A policy: probabilities of choosing each item. π_b is the one that logged.",
    "XAUC": "Share of pairs of rows that are ordered as the measured quantity orders them.",
}
"""Term → meaning."""


def glossary() -> Table:
    """Every term."""
    return _table("Words and abbreviations", list(GLOSSARY))


def explained(sections: Sequence[Section]) -> list[Section]:
    """The sections, and one that explains the terms that occur in them."""
    text = " ".join(_texts(sections))
    found = [term for term in GLOSSARY if re.search(rf"(?<![\w-]){re.escape(term)}(?![\w-])", text, _case(term))]  # fmt: skip
    if not found:
        return [*sections]
    return [*sections, Section("Words on this page", tables=[_table("Terms used here", found)], folded=True)]  # fmt: skip


def _case(term: str) -> int:
    """Single letters as they are written; others in any case."""
    return 0 if len(term) == 1 else re.IGNORECASE


def _table(caption: str, terms: Sequence[str]) -> Table:
    return Table(
        caption,
        ["term", "meaning"],
        [[Cell(t, sort=t), Cell(GLOSSARY[t], sort=GLOSSARY[t])] for t in terms],
        measured=False,
    )


def _texts(sections: Sequence[Section]) -> Iterator[str]:
    for section in sections:
        yield f"{section.heading} {section.text}"
        yield from (fact.label for fact in section.facts)
        for table in section.tables:
            yield f"{table.caption} {table.note} {' '.join(table.columns)}"
            yield from (cell.text for row in table.rows for cell in row if cell.sort is None or isinstance(cell.sort, str))  # fmt: skip
        for figure in section.figures:
            yield str(figure.layout.title.text or "")
            yield from (str(axis.title.text or "") for axis in figure.select_xaxes())
