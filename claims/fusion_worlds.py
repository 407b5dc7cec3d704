"""Items with three modalities in which the claims on fusion are judged: each world plants one property.

An item has a quality q ~ N(0, 1) and is liked with chance σ(2q). Each modality's tokens are a number along a direction of its own, in noise: q itself,
or in ``conflict`` a stranger's quality in one of the three, another one in each item; nothing says which.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from reelrank.models.item_tokens import ItemTokens, ModalTokens

WORLDS = {
    "agree": "every modality tells the item's quality",
    "conflict": "one modality of each item tells a stranger's quality, and nothing says which",
    "noisy": "every modality tells it, but the audio of each item is drowned as far as it happens, from 20 to −5 dB",
}
LENGTHS, DIMS = (4, 4, 6), (8, 8, 8)
NOISE = 0.5  # sd of a token's numbers
AUDIO = 1
SNR_DB = (20.0, -5.0)


@dataclass(frozen=True)
class Items:
    """Tokens of M items, and the true chance (M,) that one is liked."""

    tokens: ItemTokens
    chance: Tensor


def drawn(world: str, n: int, seed: int, part: int) -> Items:
    """Items of a world; train (part 0) and test (1) differ in their items only."""
    same = torch.Generator().manual_seed(seed)
    directions = [torch.nn.functional.normalize(torch.randn(dim, generator=same), dim=0) for dim in DIMS]  # fmt: skip
    own = torch.Generator().manual_seed(1_000 * (seed + 1) + part)
    quality = torch.randn(n, generator=own)
    told = quality.repeat(len(DIMS), 1)
    if world == "conflict":
        liar = torch.randint(len(DIMS), (n,), generator=own)
        told[liar, torch.arange(n)] = torch.randn(n, generator=own)
    modalities = []
    for length, direction, number in zip(LENGTHS, directions, told, strict=True):
        x = number[:, None, None] * direction
        x = x + NOISE * torch.randn(n, length, len(direction), generator=own)
        modalities.append(ModalTokens(x, torch.ones(n, length, dtype=torch.bool), torch.ones(n, dtype=torch.bool)))  # fmt: skip
    tokens = ItemTokens(tuple(modalities))
    if world == "noisy":
        high, low = SNR_DB
        tokens = noised(tokens, AUDIO, low + (high - low) * torch.rand(n, generator=own), own)
    return Items(tokens, torch.sigmoid(2 * quality))


def noised(tokens: ItemTokens, modality: int, snr_db: float | Tensor, generator: torch.Generator) -> ItemTokens:  # fmt: skip
    """Gaussian noise on one modality, at one ratio of signal to noise or at one per item (M,)."""
    modalities = list(tokens.modalities)
    x = modalities[modality].x
    sd = (x.square().mean() / 10 ** (torch.as_tensor(snr_db) / 10)).sqrt()
    noise = torch.randn(x.shape, generator=generator) * sd.view(-1, 1, 1)
    modalities[modality] = replace(modalities[modality], x=x + noise)
    return ItemTokens(tuple(modalities))
