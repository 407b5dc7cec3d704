import numpy as np
import pytest

from reelrank.evaluation.results import ResultRow, code_version, results_frame
from reelrank.evaluation.uncertainty import UserBootstrap, paired
from reelrank.tables import Results

COMMON = {
    "system": "mt_dqn", "source": "kuairand", "split": "kuairand_time/test", "seed": 0,
    "data_kind": "world", "config_hash": "abc",
}  # fmt: skip


def test_rows_become_a_valid_table():
    users = np.arange(20)
    bootstrap = UserBootstrap(users, 50)
    a, b = bootstrap.mean(users, users / 20), bootstrap.mean(users, users / 40)
    frame = results_frame(
        [
            ResultRow.from_estimate("mt_dqn", "ndcg@5", a),
            ResultRow.from_difference("mt_dqn", "popularity", "ndcg@5", paired(a, b)),
            ResultRow("mt_dqn", "f1", np.nan, 0, group="forward", reliable=False),
        ],
        **COMMON,
    )
    Results.validate(frame)
    assert frame["value"].to_list() == [pytest.approx(0.475), pytest.approx(0.2375), None]
    assert frame["paired_with"].to_list() == [None, "popularity", None]
    assert frame["run_id"].unique().to_list() == [""]
    assert frame["code_version"].unique().to_list() == [code_version()]


def test_no_rows_is_an_empty_table():
    assert Results.validate(results_frame([], **COMMON)).height == 0


def test_common_columns_are_checked():
    with pytest.raises(ValueError, match=r"missing \['seed'\], unknown \['sed'\]"):
        results_frame([], **{k: v for k, v in COMMON.items() if k != "seed"}, sed=0)
