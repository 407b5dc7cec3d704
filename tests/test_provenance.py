"""The hash of a configuration: what, not where."""

from pathlib import Path

from reelrank.buckets import EngineOptions
from reelrank.provenance import code_version, config_hash, fingerprint, result_columns


def test_places_do_not_matter_and_everything_else_does():
    here, there = ({"raw": {"root": place, "kind": "world"}, "k": 5} for place in ("/a", "/b"))
    assert config_hash(here) == config_hash(there)
    assert config_hash(here) != config_hash({**here, "k": 6})
    one, two = (EngineOptions(staging=Path(place)) for place in ("/a", "/b"))
    assert config_hash(one) == config_hash(two)
    assert config_hash(one) != config_hash(one.model_copy(update={"n_buckets": 9}))


def test_a_table_s_fingerprint_changes_with_its_inputs():
    first, second = (fingerprint({"fingerprint": name}, {"alpha": 0.1}) for name in ("x", "y"))
    assert first["fingerprint"] != second["fingerprint"]
    assert first["code_version"] == code_version()


def test_columns_of_a_runs_rows():
    made = result_columns("mmrf", {"source": "kuairand", "kind": "world"}, 3, [{"k": 6}], split="time/test")  # fmt: skip
    assert made == {
        "system": "mmrf", "source": "kuairand", "seed": 3, "data_kind": "world", "config_hash": config_hash({"k": 6}),
        "split": "time/test",
    }  # fmt: skip
    assert result_columns("x", {"source": "y", "kind": "files"}, 0, [])["data_kind"] == "real"
