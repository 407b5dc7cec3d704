"""Every rule of METHODS §1.5 has tests, and each of its tests is shown to fail."""

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("rule", range(1, 10))
def test_rule_is_tested_and_its_tests_are_seen_to_fail(rule):
    files = sorted(HERE.glob(f"test_l{rule}_*.py"))
    assert files, f"L{rule} has no tests"
    for file in files:
        text = file.read_text(encoding="utf-8")
        assert re.search(r"\*leaky\(", text), f"{file.name} has no variant that leaks"
        assert "judge(" in text, f"{file.name} does not use the judge"
