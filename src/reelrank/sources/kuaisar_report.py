"""What ingestion of KuaiSAR saw: rows at every step, and the published facts beside the measured ones."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import polars as pl

from reelrank.sources.ingest import IngestedLogs
from reelrank.sources.kuaisar_attributes import Searches, SideTables
from reelrank.sources.kuaisar_schema import PUBLISHED_COUNTS, REC, SEARCH
from reelrank.sources.manifest import Manifest
from reelrank.sources.report import fact, rows_report

logger = logging.getLogger(__name__)


def ingestion_report(
    manifest: Manifest,
    logs: IngestedLogs,
    side: SideTables,
    searches: Searches,
    quarantine: pl.DataFrame,
) -> dict[str, Any]:
    """Row counts and data facts as JSON values.

    Where the logs have as many rows as were published, a number that still differs is said aloud.

    Args:
        manifest: the raw files.
        logs: what became of the logs.
        side: the side tables as read.
        searches: what the logs say of searching.
        quarantine: all rows that could not be used.

    Source: METHODS §1.2; the share of searches with a click (about 0.6) and the mean of click (about 0.5) are documented [S].
    """
    rows = logs.interactions.scan()
    is_rec = pl.col("scenario") == REC
    rates = rows.select(
        rec_click_share=pl.col("click").filter(is_rec).mean(),
        search_click_share=pl.col("click").filter(pl.col("scenario") == SEARCH).mean(),
    ).collect(engine="streaming").row(0, named=True)  # fmt: skip
    rec_items = rows.filter(is_rec).select(pl.col("item_id").unique()).collect(engine="streaming")
    raw_rec_items = logs.item_ids[rec_items["item_id"].to_numpy()]
    by_role = {file.role: logs.rows_read[file.path.name] for file in manifest.files_of("rec_inter", "src_inter")}  # fmt: skip
    measured = {
        "rec_rows": by_role["rec_inter"],
        "search_rows": by_role["src_inter"],
        "users": len(logs.user_ids),
        "rec_items": len(raw_rec_items),
        "search_items": len(searches.item_ids),
        "items": len(np.union1d(raw_rec_items, searches.item_ids)),
        "queries": searches.queries.height,
    }
    published = PUBLISHED_COUNTS[manifest.variant]
    facts = [fact(manifest, name, n, measured[name]) for name, n in published.items()]
    is_whole = all(measured[name] == published[name] for name in ("rec_rows", "search_rows"))
    if is_whole:
        for found in facts:
            if found["status"] == "partial":
                found["status"] = "fewer than published"
                logger.warning(
                    "KuaiSAR %s: the logs are whole, but %s is %d, published are %d",
                    manifest.variant, found["fact"], found["measured"], found["published"],
                )  # fmt: skip
    return {
        **rows_report(manifest, logs, quarantine, side.n_read, side.duplicates),
        **rates,
        "queries": searches.queries.height,
        # of users without attributes who searched for nothing but other users, live rooms and the like
        "queries_of_no_user": int((~searches.queries["user_id"].is_in(logs.user_ids)).sum()),
        "queries_clicked_share": searches.queries["clicked"].mean(),
        "searches_from_rec": searches.rec_searches.height,
        "facts": facts,
    }
