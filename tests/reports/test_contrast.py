"""Words and marks can be told from the ground they stand on, in light and dark (WCAG 2.1, 1.4.3 and 1.4.11)."""

import re
from importlib.resources import files

import pytest

from reelrank.reports import theme

CSS = files("reelrank.reports").joinpath("templates/page.css").read_text(encoding="utf-8")
ROOTS = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)[:2]
LIGHT, DARK = (dict(re.findall(r"--([\w-]+): (#\w{6})", root)) for root in ROOTS)
MARKS = {
    *theme.VARIANT_COLOURS.values(), *theme.OTHERS, *theme.MODALITY_COLOURS.values(), *theme.SPLIT_COLOURS.values(),
    *theme.REWARD_COLOURS.values(), theme.WHISKER,
}  # fmt: skip


def contrast(a, b):
    high, low = sorted(map(luminance, (a, b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_formula_gives_the_published_extremes():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.005)


@pytest.mark.parametrize("mode", [LIGHT, DARK], ids=["light", "dark"])
def test_text_stands_out(mode):
    pairs = [("ink", "ground"), ("muted", "ground"), ("muted", "soft"), ("accent", "ground"), ("accent", "soft"), ("badge", "badge-ground")]  # fmt: skip
    low = {pair: contrast(mode[pair[0]], mode[pair[1]]) for pair in pairs}
    assert min(low.values()) >= 4.5, low


@pytest.mark.parametrize("mode", [LIGHT, DARK], ids=["light", "dark"])
def test_marks_stand_out(mode):
    low = {colour: contrast(colour, mode["ground"]) for colour in MARKS}
    assert min(low.values()) >= 3, min(low.items(), key=lambda kv: kv[1])
