"""Modalities that are noised, late or another item's: what a model meets in training, so that it learns whom to trust.

Source: METHODS §3.5.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from reelrank.models.item_tokens import ItemTokens, ModalTokens
from reelrank.models.options import CorruptionOptions

_NOISE, _SHIFT, _SHUFFLE = range(3)


def corrupted(tokens: ItemTokens, options: CorruptionOptions) -> tuple[ItemTokens, Tensor]:
    """Some items have one of their modalities corrupted, drawn from torch's global generator.

    Each kind is as likely: Gaussian noise of a drawn signal-to-noise ratio, a delay of one token up to all but one, the tokens
    of another of the items.

    Args:
        tokens: of M items.
        options: how many, and how strong the noise is.

    Returns:
        Tokens, and (M, K) bool: which modality of which item is corrupted; an absent one never is.
    """
    n, kinds = len(tokens.modalities[0].present), len(tokens.modalities)
    device = tokens.modalities[0].present.device
    is_hit = torch.rand(n, device=device) < options.probability
    modality = torch.randint(kinds, (n,), device=device)
    kind = torch.randint(3, (n,), device=device)
    snr = torch.tensor(options.snr_db, device=device)
    snr_M = snr[torch.randint(len(snr), (n,), device=device)]
    made, hit = [], []
    for k, own in enumerate(tokens.modalities):
        chosen = is_hit & (modality == k) & own.present
        made.append(_corrupted(own, chosen, kind, snr_M))
        hit.append(chosen)
    return ItemTokens(tuple(made)), torch.stack(hit, dim=1)


def delayed(tokens: ModalTokens, lag: Tensor) -> ModalTokens:
    """The modality ``lag`` tokens late: silent at first, its end cut off; parts of a token are interpolated.

    Args:
        tokens: of M items.
        lag: (M,) float ≥ 0, in tokens.
    """
    n, length, _ = tokens.x.shape
    place_MT = torch.arange(length, device=lag.device) - lag.unsqueeze(1)
    before_MT = place_MT.floor().long()
    weight_MT1 = (place_MT - before_MT).unsqueeze(2).to(tokens.x.dtype)
    row = torch.arange(n, device=lag.device).unsqueeze(1)

    def at(place_MT: Tensor) -> Tensor:
        x = tokens.x[row, place_MT.clamp(0, length - 1)]
        return x * ((place_MT >= 0) & (place_MT < length)).unsqueeze(2)

    late = (1 - weight_MT1) * at(before_MT) + weight_MT1 * at(before_MT + 1)
    return replace(tokens, x=late * tokens.mask.unsqueeze(2))


def _corrupted(own: ModalTokens, chosen: Tensor, kind: Tensor, snr_M: Tensor) -> ModalTokens:
    """One modality, corrupted where ``chosen``."""
    power = own.x.square().sum() / (own.mask.sum() * own.x.shape[2]).clamp_min(1)
    sd_M = (power / 10 ** (snr_M / 10)).sqrt() * (chosen & (kind == _NOISE))
    x = own.x + sd_M[:, None, None] * torch.randn_like(own.x) * own.mask.unsqueeze(2)
    most = max(own.x.shape[1] - 1, 1)
    lag = torch.randint(1, most + 1, kind.shape, device=kind.device)
    late = delayed(replace(own, x=x), lag * (chosen & (kind == _SHIFT)))
    # those to be exchanged take the tokens of the next item that has the modality
    having = torch.nonzero(own.present).squeeze(1)
    following = torch.arange(len(kind), device=kind.device)
    following[having] = having.roll(1)
    source = torch.where(
        chosen & (kind == _SHUFFLE), following, torch.arange(len(kind), device=kind.device)
    )
    return late.select(source)
