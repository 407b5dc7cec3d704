import polars as pl
import pytest

from reelrank.models.behaviours import BEHAVIOURS, behaviour_labels, label_names, watch_rule


def log(**columns):
    nothing = {c: [None] * 4 for c in ("long_view", "watch_ratio", "like", "forward")}
    types = dict.fromkeys(nothing, pl.Int8) | {"watch_ratio": pl.Float32}
    return pl.DataFrame(nothing | columns, schema=types)


@pytest.mark.parametrize(
    ("columns", "rule", "watch"),
    [
        ({"long_view": [1, 0, None, 1], "watch_ratio": [0.1, 2, 2, 2]}, "long_view", [1, 0, None, 1]),
        ({"watch_ratio": [0.999, 1.0, 3.5, None]}, "watch_ratio", [0, 1, 1, None]),
        ({"like": [1, 0, 0, 1]}, "long_view", [None] * 4),
    ],
    ids=["KuaiRand", "KuaiRec", "Weibo"],
)  # fmt: skip
def test_what_was_watched_by_hand(columns, rule, watch):
    frame = log(**columns)
    assert watch_rule(frame.lazy()) == rule
    found = frame.select(**behaviour_labels(rule))
    assert found.columns == list(BEHAVIOURS) == list(label_names(rule))
    assert found["watch"].to_list() == watch
    assert found["like"].to_list() == frame["like"].to_list()


def test_one_long_view_anywhere_makes_it_the_label_of_all():
    frame = log(long_view=[None, None, None, 1], watch_ratio=[2.0, 2.0, 2.0, 0.1])
    assert watch_rule(frame.lazy()) == "long_view"
    assert label_names("watch_ratio")["watch"] == "watch_ratio ≥ 1"
