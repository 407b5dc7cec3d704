"""The page of all parameters: as the models and ``base`` have them now."""

from pathlib import Path

import pytest
from pydantic import BaseModel, Field
from support.docs_scripts import docs_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maker():
    return docs_script("make_parameters")


def test_page_is_current(maker):
    written = (ROOT / "docs/parameters.md").read_text(encoding="utf-8")
    assert written == maker.render(), "docs/parameters.md is out of date: run `make docs`"


def test_every_parameter_says_what_it_means(maker):
    found = maker.leaves(maker.Parameters, maker.values_in_base())
    assert [p.path for p in found if not p.meaning] == []


class Inner(BaseModel):
    """A block."""

    rate: float = Field(0.5, gt=0, le=1, description="a | rate")


class Outer(BaseModel):
    """Every way in which a model can hold another."""

    one: Inner = Field(Inner(rate=0.25), description="a block")
    maybe: Inner | None = Field(None, description="a block or none")
    named: dict[str, Inner] = Field(description="by name")
    listed: tuple[Inner, ...] = Field((), description="in order")


def test_leaves_by_hand(maker):
    values = {"one": {"rate": 0.75}, "maybe": None, "named": {"a": {"rate": 1.0}}}
    found = {p.path: p for p in maker.leaves(Outer, values)}
    assert list(found) == [
        "one.rate", "maybe", "maybe.rate", "named", "named.<name>.rate", "listed", "listed[].rate",
    ]  # fmt: skip
    one = found["one.rate"]
    # what the block above defaults to, not what the field does
    assert (one.default, one.base, one.bounds) == ("`0.25`", "`0.75`", "> 0, ≤ 1")
    assert one.meaning == "a \\| rate"
    assert found["named"].default == "*required*" and found["named"].base == "`['a']`"
    assert found["maybe"].base == "`null`" and found["listed"].base == ""
