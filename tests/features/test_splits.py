from datetime import UTC, date, datetime

import polars as pl
import pytest
from pydantic import ValidationError
from support.feature_logs import log_of

from reelrank.features.splits import SplitOptions, assign_split, require_rows, time_cuts
from reelrank.tables import Splits

FRACTION = SplitOptions(rule="kuairand_time_fraction")


def local_ms(month, day, hour=0, minute=0):
    """2022, Asia/Shanghai."""
    return int(datetime(2022, month, day, hour, minute, tzinfo=UTC).timestamp() - 8 * 3600) * 1000


def test_default_cuts_are_those_of_the_release():
    first, last = local_ms(4, 8, 0, 5), local_ms(5, 8, 23, 59)
    cuts = time_cuts(SplitOptions(), first, last)
    assert (cuts.start_ms, cuts.end_of("train")) == (first, local_ms(4, 19))
    assert (cuts.end_of("val"), cuts.end_of("test")) == (local_ms(4, 22), last + 1)


def test_parts_are_half_open_in_local_time():
    cuts = time_cuts(SplitOptions(), local_ms(4, 8), local_ms(5, 8, 23))
    times = [local_ms(4, 19) - 1, local_ms(4, 19), local_ms(4, 22) - 1, local_ms(4, 22)]
    log = log_of(user_id=[3] * 4, item_id=[0] * 4, ts_ms=times)
    splits = assign_split(log, cuts)
    assert splits["split"].to_list() == ["train", "val", "val", "test"]
    assert splits.select("user_id", "row_id").equals(log.select("user_id", "row_id"))
    Splits.validate(splits)


@pytest.mark.parametrize(
    ("n_days", "train", "val"), [(14, 10, 1), (10, 7, 1), (5, 3, 1), (3, 1, 1), (30, 21, 3)]
)
def test_fractions_are_cut_at_midnight(n_days, train, val):
    first = local_ms(4, 1, 13)
    last = local_ms(4, n_days, 1)
    cuts = time_cuts(FRACTION, first, last)
    assert cuts.train_end_ms == local_ms(4, 1 + train)
    assert cuts.val_end_ms == local_ms(4, 1 + train + val)
    assert cuts.end_ms == last + 1


def test_a_thin_head_belongs_to_train():
    options = FRACTION.model_copy(update={"first_day": date(2022, 4, 25)})
    cuts = time_cuts(options, local_ms(4, 9), local_ms(5, 8, 23))
    assert (cuts.start_ms, cuts.train_end_ms) == (local_ms(4, 9), local_ms(5, 5))
    assert cuts.val_end_ms == local_ms(5, 6)


@pytest.mark.parametrize(
    ("options", "first", "last", "words"),
    [
        (
            SplitOptions(),
            local_ms(4, 25),
            local_ms(5, 8),
            ["kuairand_time leaves train and val empty", "2022-04-25 to 2022-05-08", "_fraction"],
        ),
        (SplitOptions(), local_ms(4, 8), local_ms(4, 20), ["leaves test empty"]),
        (FRACTION, local_ms(4, 8), local_ms(4, 9), ["at least 3 local days", "covers 2"]),
    ],
)
def test_a_part_without_days_is_refused(options, first, last, words):
    with pytest.raises(ValueError) as error:
        time_cuts(options, first, last)
    assert all(word in str(error.value) for word in words)


def test_a_part_without_rows_is_refused():
    cuts = time_cuts(SplitOptions(), local_ms(4, 8), local_ms(5, 8))
    require_rows({"train": 1, "val": 1, "test": 1}, cuts)
    with pytest.raises(
        ValueError, match=r"kuairand_time leaves val empty: the log covers 2022-04-08"
    ):
        require_rows({"train": 5, "test": 2, "val": 0}, cuts)


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_last_day": date(2022, 5, 1)},
        {"train_fraction": 0.9, "val_fraction": 0.1},
        {"rule": "random"},
        {"seed": 1},
    ],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ValidationError):
        SplitOptions(**wrong)


def test_splits_of_no_rows():
    cuts = time_cuts(SplitOptions(), local_ms(4, 8), local_ms(5, 8))
    empty = log_of(user_id=[0], item_id=[0], ts_ms=[0]).clear()
    assert assign_split(empty, cuts).schema == pl.Schema(Splits.polars_schema())


@pytest.mark.parametrize(
    ("share", "rule"), [(0.2, "kuairand_time"), (0.19, "kuairand_time_fraction")]
)
def test_auto_takes_the_fixed_dates_only_if_they_leave_enough_in_train(share, rule):
    options = SplitOptions(rule="auto")
    assert options.resolved(share).rule == rule
    assert SplitOptions().resolved(0.0).rule == "kuairand_time"
    with pytest.raises(ValueError, match="resolved"):
        time_cuts(options, 0, 1)
