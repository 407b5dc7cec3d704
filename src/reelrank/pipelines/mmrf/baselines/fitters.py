"""How each baseline is fitted, by its registry name."""

from __future__ import annotations

from collections.abc import Callable

from reelrank.pipelines.mmrf.baselines.fields import fit_deepfm, fit_wide_deep
from reelrank.pipelines.mmrf.baselines.massa import fit_massa
from reelrank.pipelines.mmrf.baselines.pareto import fit_pareto
from reelrank.pipelines.mmrf.baselines.supervised import fit_bc, fit_ltr
from reelrank.pipelines.mmrf.baselines.tscac import fit_tscac
from reelrank.pipelines.mmrf.fitting import Fitted

FITTERS: dict[str, Callable[..., Fitted]] = {
    "bc": fit_bc,
    "wide_deep": fit_wide_deep,
    "deepfm": fit_deepfm,
    "pareto": fit_pareto,
    "tscac": fit_tscac,
    "massa": fit_massa,
    "ltr": fit_ltr,
}
"""``fit(options, inputs, learning, replay, *, validate_fn, work_dir, identity)``; options: ``baselines.options.BaselineOptions``."""
