import polars as pl
import pytest

from reelrank.features.heads import HEADS, HeadRule, head_columns

# play (ms), ratio → complete, long, rewatch, neg under code and under poster
CASES = [
    (5_000, 1.0, (1, 0, 0, 0), (0, 0, 0, 0)),
    (2_000, 0.5, (0, 0, 0, 1), (0, 0, 0, 0)),
    (1_999, 2.0, (1, 1, 1, 1), (1, 1, 1, 1)),
    (5_000, 1.5, (1, 1, 0, 0), (1, 0, 0, 0)),
    (12_000, 0.4, (0, 1, 0, 0), (0, 0, 0, 0)),
    (12_001, 0.4, (0, 1, 0, 0), (0, 1, 0, 0)),
    (20_000, None, (None, 1, None, 0), (None, 1, None, 0)),
    (5_000, None, (None, None, None, 0), (None, None, None, 0)),
    (None, None, (None,) * 4, (None,) * 4),
]


@pytest.mark.parametrize("rule", ["code", "poster"])
def test_thresholds(rule):
    frame = pl.DataFrame(
        {"play_ms": [c[0] for c in CASES], "watch_ratio": [c[1] for c in CASES]},
        schema={"play_ms": pl.Int32, "watch_ratio": pl.Float32},
    )
    found = frame.select(head_columns(HeadRule(rule=rule)))
    assert found.columns == list(HEADS)
    assert set(found.dtypes) == {pl.Int8}
    assert found.rows() == [c[2 if rule == "code" else 3] for c in CASES]
