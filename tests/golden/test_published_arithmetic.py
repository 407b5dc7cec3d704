"""METHODS Appendix A: the published relative changes follow from the published numbers (in percent)."""

import pytest


@pytest.mark.parametrize(
    ("pairs", "published"),
    [
        (((11.54, 10.74), (26.89, 25.18)), 7.120),
        (((6.344, 6.303), (2.389, 1.913)), 12.766),
        (((0.5947, 0.6128), (0.6476, 0.6378)), -0.709),
    ],
)
def test_mean_relative_change(pairs, published):
    mean = sum(ours / theirs - 1 for ours, theirs in pairs) / len(pairs)
    assert 100 * mean == pytest.approx(published, abs=5e-4)
