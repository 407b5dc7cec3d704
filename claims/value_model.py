"""Does a graph help where tastes are shared, and only there? Value models on two planted worlds: ``make claims``.

Each run is ``kedro run --pipelines value_model`` up to the predictions, in ``base`` with its own data folder. In ``collaborative`` tastes are strong and
no published column shows them; in ``published`` users and videos differ in nothing but the videos' length, so that a graph must make no
difference: an equivalence with a margin. Where a graph does not help, ``spectral`` says whether there was something to find in it: the EdgeMLP's
logits and one number more, the product of user and item in the leading singular vectors of the very graph that the networks pass messages over,
weighed on val rows. Mean AUC over the heads on the test part, paired by user. Rows are stored like any
results (experiment ``claims``); a claim that fails is shown as such, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from kedro.framework.session import KedroSession
from kedro.framework.startup import bootstrap_project
from kedro.io import Version
from kedro.io.core import generate_timestamp
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).parent))
from head_weights_worlds import WORLDS

from reelrank.datasets import ReportDataset, ResultsDataset
from reelrank.evaluation.results import ResultRow, results_frame
from reelrank.evaluation.uncertainty import Difference, UserBootstrap, paired
from reelrank.features.heads import HEADS
from reelrank.options import digest
from reelrank.pipelines.value_model.evaluate import MEAN, Key, auc_estimates
from reelrank.reports.page import Section, plain_table, render_page

log = logging.getLogger("reelrank.claims")
ROOT = Path(__file__).parents[1]
MARGIN = 0.01  # mean AUC below which a difference counts as none
VARIANTS = ("logistic", "edge_mlp", "gnn_128")
SPECTRAL, N_VECTORS = "spectral", 8
Rule = Callable[[Difference], bool]


@dataclass(frozen=True)
class Claim:
    """One difference that a world must show.

    Attributes:
        world: of ``head_weights_worlds``.
        pair: variant, and the one that it is compared with.
        says: in words.
        rule: when it holds, in words.
        holds: the same; None: shown, not judged.
    """

    world: str
    pair: tuple[str, str]
    says: str
    rule: str
    holds: Rule | None


ABOVE = "the paired 95 % interval lies above 0"
NOT_WORSE = f"the paired 95 % interval lies above −{MARGIN}"
EQUIVALENT = f"the paired 95 % interval lies within ±{MARGIN}"
CLAIMS = (
    Claim("collaborative", ("gnn_128", "edge_mlp"), "a graph helps where tastes are shared", ABOVE, lambda d: d.ci_low > 0),
    Claim("collaborative", ("edge_mlp", "logistic"), "a network is not worse than a regression", NOT_WORSE, lambda d: d.ci_low > -MARGIN),
    Claim("published", ("gnn_128", "edge_mlp"), "a graph makes no difference where nothing is shared", EQUIVALENT, lambda d: d.ci_low > -MARGIN and d.ci_high < MARGIN),
    Claim("published", ("edge_mlp", "logistic"), "a network against a regression", "shown", None),
    Claim("collaborative", (SPECTRAL, "edge_mlp"), "what the graph alone adds to the network without it", "shown", None),
    Claim("published", (SPECTRAL, "edge_mlp"), "what the graph alone adds to the network without it", "shown", None),
)  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A claim on one seed."""

    claim: Claim
    seed: int
    row: ResultRow
    holds: bool | None


def predictions(world: str, seed: int, folder: Path, env: str) -> dict[str, pl.DataFrame]:
    """Predictions of test rows by each variant, and by ``spectral``."""
    overrides = {**WORLDS[world].overrides, "seed": seed}
    params = {"data_root": str(folder), "worlds": {"kuairec": overrides}}
    with KedroSession.create(ROOT, env=env, runtime_params=params) as session:
        session.run(
            pipeline_names=["value_model"],
            to_nodes=[f"value_model.predict_{variant}" for variant in VARIANTS],
        )
    with KedroSession.create(ROOT, env=env, runtime_params=params) as session:
        catalog = session.load_context().catalog
        found = {v: catalog.load(f"value_model.{v}_predictions") for v in VARIANTS}
        train = catalog.load("value_model.edges").scan().filter(pl.col("split") == "train")
        pairs = train.select("user_id", "item_id").unique().sort("user_id", "item_id").collect()
    test = {v: table.filter(split="test") for v, table in found.items()}
    return test | {SPECTRAL: spectral(found["edge_mlp"], pairs)}


def spectral(predictions: pl.DataFrame, pairs: pl.DataFrame) -> pl.DataFrame:
    """Test rows of ``predictions`` with one number more, from the normalised graph of the train ``pairs`` without its first (degree) vector."""
    user, item = (pairs[name].to_numpy() for name in ("user_id", "item_id"))
    n_users, n_items = (
        int(max(pairs[c].max(), predictions[c].max())) + 1 for c in ("user_id", "item_id")
    )  # type: ignore[arg-type]
    degree = [np.bincount(ids, minlength=n) for ids, n in ((user, n_users), (item, n_items))]
    weight = 1 / np.sqrt(degree[0][user] * degree[1][item])
    left, value, right = svds(
        csr_array((weight, (user, item)), (n_users, n_items)), N_VECTORS + 1, random_state=0
    )
    kept = np.argsort(-value)[1:]
    left, right = left[:, kept] * value[kept], right[kept].T
    product = np.einsum(
        "nd,nd->n",
        left[predictions["user_id"].to_numpy()],
        right[predictions["item_id"].to_numpy()],
    )
    is_val, is_test = ((predictions["split"] == part).to_numpy() for part in ("val", "test"))
    made = predictions.filter(is_test)
    for head in HEADS:
        p = predictions[f"p_{head}"].to_numpy().clip(1e-6, 1 - 1e-6)
        known = is_val & predictions[head].is_not_null().to_numpy()
        inputs = np.column_stack([np.log(p / (1 - p)), product / product[is_val].std()])
        fitted = LogisticRegression().fit(inputs[known], predictions[head].to_numpy()[known])
        made = made.with_columns(
            pl.Series(f"p_{head}", fitted.predict_proba(inputs[is_test])[:, 1])
        )
    return made


def judge(world: str, seed: int, folder: Path, env: str, replicates: int) -> Iterator[Judged]:
    """Every claim on one world."""
    tables = predictions(world, seed, folder, env)
    bootstrap = UserBootstrap(tables[VARIANTS[0]]["user_id"], replicates, seed)
    found = {v: auc_estimates(table, bootstrap)[Key("auc", MEAN)] for v, table in tables.items()}
    for claim in (c for c in CLAIMS if c.world == world):
        difference = paired(*(found[variant] for variant in claim.pair))
        row = ResultRow.from_difference(*claim.pair, "auc", difference, group=MEAN)
        yield Judged(claim, seed, row, None if claim.holds is None else claim.holds(difference))


def page(found: Sequence[Judged], results: pl.DataFrame) -> str:
    """The claims as one page."""
    words = {None: "shown", True: "holds", False: "FAILS"}
    columns = [
        "claim",
        "world",
        "seed",
        "pair",
        "difference",
        "low",
        "high",
        "n",
        "rule",
        "verdict",
    ]
    rows = [
        [f.claim.says, f.claim.world, f.seed, " − ".join(f.claim.pair), f.row.value, f.row.ci_low, f.row.ci_high, f.row.n, f.claim.rule, words[f.holds]]
        for f in found
    ]  # fmt: skip
    judged = [f for f in found if f.holds is not None]
    first = results.row(0, named=True)
    return render_page(
        "Claims on value models",
        f"{sum(bool(f.holds) for f in judged)} of {len(judged)} hold. KuaiRec sample worlds, base sizes.",
        [Section("Value models", "Differences in mean AUC over the four heads on test rows, same rows and same resamples of users.",
                 tables=[plain_table("Claims by seed", columns, rows)])],
        {"run id": first["run_id"], "code version": first["code_version"], "config hash": first["config_hash"], "command": "python claims/value_model.py"},
        "world",
    )  # fmt: skip


def main() -> int:
    """Judge every seed, store rows and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--env", default="base")
    parser.add_argument("--replicates", type=int, default=1000)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    given = parser.parse_args()
    bootstrap_project(ROOT)
    found: list[Judged] = []
    with tempfile.TemporaryDirectory(dir=given.data) as scratch:
        for seed in given.seeds:
            for world in ("collaborative", "published"):
                folder = Path(scratch) / f"{world}-{seed}"
                found += judge(world, seed, folder, given.env, given.replicates)
    for f in found:
        mark = {None: "shown", True: "holds", False: "FAILS"}[f.holds]
        log.warning("%s %s seed %d: %s: %+.4f [%s, %s]", mark, f.claim.world, f.seed, f.claim.says, f.row.value, f.row.ci_low, f.row.ci_high)  # fmt: skip
    run_id = generate_timestamp()
    version = Version(run_id, run_id)
    words = {None: "shown", True: "holds", False: "fails"}
    frames = [
        results_frame(
            [f.row], system="value_model", source="kuairec", split="burst_day/test", seed=f.seed, data_kind="world",
            experiment="claims", config_hash=digest(MARGIN), cell=f"{f.claim.world} | {f.claim.says}: {words[f.holds]}",
        )
        for f in found
    ]  # fmt: skip
    folder = given.data / "08_reporting"
    stored = ResultsDataset(filepath=str(folder / "results" / "sample" / "claims_value_model"), version=version)  # fmt: skip
    stored.save(pl.concat(frames))
    report = folder / "report" / "claims_value_model.html"
    ReportDataset(filepath=str(report), version=version).save(page(found, stored.load()))
    log.warning("report: %s", report)
    return int(any(f.holds is False for f in found))


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    sys.exit(main())
