import numpy as np
import polars as pl
from support.feature_logs import DAY, HOUR, START, items_of

from reelrank.features.candidates import (
    NEVER,
    availability_ts,
    item_popularity,
)

EVENTS = pl.DataFrame(
    {
        "item_id": [0, 1, 2, 2, 3, 4],
        "ts_ms": [START, START + HOUR, START + HOUR, START, START + 3 * DAY, START + 2 * DAY],
    },
    schema_overrides={"item_id": pl.Int32},
)
ITEMS = items_of(
    6,
    upload_ts=[START - DAY, None, START + 2 * HOUR, START - 9 * DAY, START + 5 * DAY, START - DAY],
)


def test_availability_by_hand():
    expected = [
        START - DAY,  # shown on the first day: from its upload on
        START + HOUR + 1,  # no upload time: after its first exposure
        START + 2 * HOUR,  # the upload time counts
        START + 3 * DAY + 1,  # shown later: after its first exposure, though uploaded long before
        START + 5 * DAY,  # shown before its upload time: the later one counts
        NEVER,  # never shown
    ]
    availability = availability_ts(EVENTS, ITEMS)
    assert availability.tolist() == expected
    assert np.flatnonzero(availability <= START + 2 * HOUR).tolist() == [0, 1, 2]
    assert np.flatnonzero(availability <= START + HOUR).tolist() == [0]


def test_popularity_counts_train_rows():
    assert item_popularity(np.array([2, 0, 2], np.int32), 4).tolist() == [1, 0, 2, 0]
