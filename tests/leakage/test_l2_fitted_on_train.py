"""L2: scalers, vocabularies, item pools and popularity are fitted on train."""

import numpy as np
import polars as pl
import pytest
from support.feature_logs import N_ITEMS, items_of
from support.leaks import honest, leaky

from reelrank.features.candidates import item_popularity
from reelrank.features.modal import ProxyOptions, metadata_proxy, pooled_vectors

TRAIN_ITEMS = 8  # items 0 … 7 are in train rows, 8 … 11 only in later ones
OPTIONS = ProxyOptions(text_dim=4, min_count=1)


def stream(seed):
    """Train rows are always the same; val and test rows depend on the seed."""
    rng = np.random.default_rng(seed)
    item = np.concatenate([np.arange(50) % TRAIN_ITEMS, rng.integers(N_ITEMS, size=50)])
    split = ["train"] * 50 + ["val"] * 20 + ["test"] * 30
    return pl.DataFrame({"item_id": item.astype(np.int32), "split": split})


def catalogue(seed):
    """Metadata of the train items are always the same; those of later items depend on the seed."""
    rng = np.random.default_rng(seed)

    def column(fixed, free):
        return [fixed(i) if i < TRAIN_ITEMS else free(int(rng.integers(100))) for i in range(12)]

    return items_of(
        N_ITEMS,
        width=column(lambda i: 700 + i, lambda r: 200 + r),
        height=column(lambda i: 1200 - i, lambda r: 900 + r),
        duration_ms=column(lambda i: 5000 * (i + 1), lambda r: 1000 + r),
        tags=column(lambda i: [i % 3, 7], lambda r: [r, 7]),
        video_type=column(lambda i: "NORMAL", lambda r: f"T{r}"),
        music_id=column(lambda i: i % 4 + 1, lambda r: r % 4 + 1),
        music_type=column(lambda i: i % 2, lambda r: r),
        caption=column(lambda i: f"caption number {i}", lambda r: f"{r} later"),
    )


def train_items(events):
    return events.filter(pl.col("split") == "train")["item_id"].to_numpy()


def all_items(events):
    return events["item_id"].to_numpy()


def proxies(events, items, fit_on):
    found = metadata_proxy(items, np.unique(fit_on(events)), OPTIONS)
    return found.filter(pl.col("item_id") < TRAIN_ITEMS).to_dicts()


def pooled(events, items, fit_on):
    # the encoder's fit is held fixed, so that only the scaler is judged
    frame = metadata_proxy(items, np.arange(TRAIN_ITEMS, dtype=np.int32), OPTIONS)
    return pooled_vectors(frame, np.unique(fit_on(events)))[:TRAIN_ITEMS].tolist()


def popularity(events, _, fit_on):
    return item_popularity(fit_on(events), N_ITEMS).tolist()


def check(subject):
    fitted, fit_on = subject
    expected = fitted(stream(0), catalogue(0), fit_on)
    for seed in (1, 2):
        found = fitted(stream(seed), catalogue(seed), fit_on)
        assert found == expected, "what was fitted depends on val or test rows"


FITTED = (proxies, pooled, popularity)


@pytest.mark.parametrize(
    "variant",
    [
        *honest(*((fitted, train_items) for fitted in FITTED)),
        *leaky("depends on val or test rows", *((fitted, all_items) for fitted in FITTED)),
    ],
)
def test_later_rows_do_not_change_what_was_fitted(variant, judge):
    judge(check, variant)
