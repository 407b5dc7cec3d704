"""The fusion of a layout by its name.

Source: METHODS §3.4.
"""

from __future__ import annotations

from reelrank.models.fusion import CrossModalFusion, ModalFusion
from reelrank.models.options import FusionOptions
from reelrank.models.pairwise_fusion import PairwiseFusion

LAYOUTS: dict[str, type[ModalFusion]] = {"joint": CrossModalFusion, "mult": PairwiseFusion}


def fusion_network(
    options: FusionOptions, token_lengths: tuple[int, ...], token_dims: tuple[int, ...]
) -> ModalFusion:
    """The network of ``options.layout``.

    Args:
        options: sizes.
        token_lengths: T_m of each modality.
        token_dims: D_m of each modality.
    """
    return LAYOUTS[options.layout](options, token_lengths, token_dims)
