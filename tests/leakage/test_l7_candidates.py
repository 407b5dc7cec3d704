"""L7: candidates are uploaded and were seen in the catalogue before t."""

import numpy as np
import polars as pl
import pytest
import torch
from support.feature_logs import DAY, N_ITEMS, START, items_of, random_log
from support.leaks import honest, leaky

from reelrank.features.candidate_sets import CandidatePool, CandidateSetOptions, candidate_sets
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


def must_be_candidate(log, uploads, item, ts_ms):
    """A candidate at a time is uploaded, and was shown before or was there when the log began."""
    upload = uploads[item]
    shown_before = (log.filter(pl.col("item_id") == item)["ts_ms"] < ts_ms).any()
    first_day = ts_ms < log["ts_ms"].min() + DAY and upload is not None
    assert upload is None or upload <= ts_ms, f"candidate {item} is not uploaded"
    assert shown_before or first_day, f"candidate {item} was not seen before"


def check(availability_of):
    availability = availability_of(LOG, ITEMS)
    sampler = NegativeSampler.fit(availability, item_popularity(LOG["item_id"].to_numpy(), N_ITEMS))
    generator = torch.Generator().manual_seed(0)
    for ts_ms in LOG["ts_ms"].unique().sort().to_list():
        drawn = set(sampler.sample(torch.tensor([ts_ms]), 50, generator)[0].tolist()) - {NO_ITEM}
        for item in drawn | set(np.flatnonzero(availability <= ts_ms).tolist()):
            must_be_candidate(LOG, UPLOADS, item, ts_ms)


VARIANTS = [
    *honest(availability_ts),
    *leaky("was not seen before", of_uploads_alone),
    *leaky("is not uploaded", of_first_exposures_alone),
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_candidates_are_uploaded_and_seen(variant, judge):
    judge(check, variant)


def two_days_early(events, items):
    return availability_ts(events, items) - 2 * DAY


def check_on_world(availability_of, world):
    """Every drawn candidate of every request of a world in which videos are uploaded while the log runs."""
    log, items = world.interactions, world.items
    uploads = items["upload_ts"].to_list()
    late = sum(upload > log["ts_ms"].min() + DAY for upload in uploads if upload is not None)
    assert late > items.height / 10, "too few videos are uploaded while the log runs"
    popularity = item_popularity(log["item_id"].to_numpy(), items.height)
    pool = CandidatePool.fit(availability_of(log, items), popularity, "uniform")
    sets = candidate_sets(log, pool, CandidateSetOptions(size=20))
    times = log.select("request_id", "ts_ms").unique()
    drawn = sets.filter(pl.col("shown") == 0).join(times, on="request_id")
    assert drawn.height > log.height
    earliest = drawn.group_by("item_id").agg(pl.col("ts_ms").min())
    for item, ts_ms in earliest.iter_rows():
        must_be_candidate(log, uploads, item, ts_ms)


@pytest.mark.parametrize(
    "variant",
    [
        *honest(availability_ts),
        *leaky("is not uploaded|was not seen before", two_days_early, of_uploads_alone),
    ],
)
def test_candidate_sets_of_a_world_are_uploaded_and_seen(variant, judge, world):
    judge(check_on_world, variant, world)


def test_availability_ignores_what_follows():
    """From the second day on, who is a candidate at t does not depend on rows from t on."""
    whole = availability_ts(LOG, ITEMS)
    for ts_ms in range(START + 2 * DAY, START + 8 * DAY, DAY):
        past = availability_ts(LOG.filter(pl.col("ts_ms") < ts_ms), ITEMS)
        assert np.flatnonzero(past <= ts_ms).tolist() == np.flatnonzero(whole <= ts_ms).tolist()
