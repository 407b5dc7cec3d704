"""How a leakage rule is tested: a check passes on what is honest and fails on what leaks on purpose.

@pytest.mark.parametrize("variant", [*honest(feature), *leaky("what the check says", bad_feature)])
def test_rule(variant, judge):
    judge(check, variant)
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest


@dataclass(frozen=True)
class Variant:
    """What a check is given, and what the check says of it if it leaks."""

    subject: Any
    caught_by: str | None = None


def honest(*subjects: Any) -> list[Any]:
    return [pytest.param(Variant(s), id=_name(s)) for s in subjects]


def leaky(caught_by: str, *subjects: Any) -> list[Any]:
    return [pytest.param(Variant(s, caught_by), id=f"leaky-{_name(s)}") for s in subjects]


def _name(subject: Any) -> str:
    """Names of the functions and texts that a subject is made of."""
    parts = subject if isinstance(subject, tuple) else (subject,)
    names = (p if isinstance(p, str) else getattr(p, "__name__", None) for p in parts)
    of_partials = (p.args[0] for p in parts if isinstance(p, partial))
    return "-".join([n for n in names if n] + list(of_partials))
