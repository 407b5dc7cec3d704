"""L7: candidates are uploaded and were seen in the catalogue before t."""

import numpy as np
import polars as pl
import pytest
import torch
from support.feature_logs import DAY, N_ITEMS, START, items_of, random_log

from reelrank.features.candidates import (
    availability_ts,
    item_popularity,
)
from reelrank.models.negatives import NO_ITEM, NegativeSampler

LOG = random_log(seed=2, n_rows=60, days=8)
UPLOADS = [None if i % 4 == 0 else START + (i - 6) * DAY // 2 for i in range(N_ITEMS)]
ITEMS = items_of(N_ITEMS, upload_ts=UPLOADS)


def of_uploads_alone(events, items):
    return items["upload_ts"].fill_null(0).to_numpy()


def of_first_exposures_alone(events, items):
    first = events.group_by("item_id").agg(pl.col("ts_ms").min()).sort("item_id")
    return items.select("item_id").join(first, on="item_id", how="left")["ts_ms"].to_numpy() + 1


def check(availability_of):
    availability = availability_of(LOG, ITEMS)
    sampler = NegativeSampler.fit(availability, item_popularity(LOG["item_id"].to_numpy(), N_ITEMS))
    generator = torch.Generator().manual_seed(0)
    for ts_ms in LOG["ts_ms"].unique().sort().to_list():
        drawn = set(sampler.sample(torch.tensor([ts_ms]), 50, generator)[0].tolist()) - {NO_ITEM}
        for item in drawn | set(np.flatnonzero(availability <= ts_ms).tolist()):
            upload = UPLOADS[item]
            shown_before = (LOG.filter(pl.col("item_id") == item)["ts_ms"] < ts_ms).any()
            first_day = ts_ms < LOG["ts_ms"].min() + DAY and upload is not None
            assert upload is None or upload <= ts_ms, f"candidate {item} is not uploaded"
            assert shown_before or first_day, f"candidate {item} was not seen before"


def test_candidates_are_uploaded_and_seen():
    check(availability_ts)


@pytest.mark.parametrize(
    ("leaky", "message"),
    [(of_uploads_alone, "was not seen before"), (of_first_exposures_alone, "is not uploaded")],
)
def test_the_check_finds_a_leak(leaky, message):
    with pytest.raises(AssertionError, match=message):
        check(leaky)


def test_availability_ignores_what_follows():
    """From the second day on, who is a candidate at t does not depend on rows from t on."""
    whole = availability_ts(LOG, ITEMS)
    for ts_ms in range(START + 2 * DAY, START + 8 * DAY, DAY):
        past = availability_ts(LOG.filter(pl.col("ts_ms") < ts_ms), ITEMS)
        assert np.flatnonzero(past <= ts_ms).tolist() == np.flatnonzero(whole <= ts_ms).tolist()
