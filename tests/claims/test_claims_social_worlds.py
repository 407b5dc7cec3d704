"""Who is told that a followed user had forwarded a post."""

import sys
from pathlib import Path

import polars as pl

sys.path.insert(0, str(Path(__file__).parents[2] / "claims"))
from social_worlds import WINDOW_MS, forwarded_by_followed

HOUR = 3_600_000


def told(rows, follows):
    names = ["user_id", "item_id", "ts_ms", "forward"]
    events = pl.DataFrame(rows, names, orient="row").cast(
        {"user_id": pl.Int32, "item_id": pl.Int32}
    )
    return forwarded_by_followed(
        events, pl.DataFrame(follows, ["src", "dst"], orient="row")
    ).to_list()


def test_a_followed_users_forward_of_the_same_post_counts_from_just_after_it_for_a_day():
    forward = (1, 7, HOUR, 1)
    own = [(0, 7, HOUR, 0), (0, 7, HOUR + 1, 0), (0, 7, HOUR + WINDOW_MS, 1), (0, 7, HOUR + WINDOW_MS + 1, 0)]  # fmt: skip
    assert told([forward, *own], [(0, 1)]) == [False, False, True, True, False]


def test_other_posts_views_and_users_that_are_not_followed_do_not_count():
    rows = [(1, 7, HOUR, 1), (1, 8, HOUR, 0), (2, 8, HOUR, 1), (0, 9, 2 * HOUR, 0), (0, 8, 2 * HOUR, 0), (3, 7, 2 * HOUR, 0)]  # fmt: skip
    assert told(rows, [(0, 1), (1, 3)]) == [False] * 6
    assert told(rows, [(3, 1), (0, 2)]) == [False, False, False, False, True, True]
