"""What a study does to a model's inputs: modalities that are absent, noised, late or exchanged, edges dropped or rewired, times permuted.

Source: METHODS §3.10, §9 MT-04, MT-07, MT-08, MT-09, MT-11, MT-12, MT-16.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import polars as pl
import torch
from torch import Tensor

from reelrank.models.corruption import delayed
from reelrank.models.event_stream import EventStream
from reelrank.models.inputs import ModelInputs
from reelrank.models.item_tokens import ItemTokens, ModalTokens
from reelrank.options import digest
from reelrank.pipelines.mt_dqn.fitting import Tables
from reelrank.pipelines.mt_dqn.study_options import NOTHING, NoiseOptions, Perturbation
from reelrank.tables import MODALITIES
from reelrank.training.options import DeviceName

_LAST_KEY = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class PerturbedTables(Tables):
    """The tables of a run, read with a perturbation; what is done to events in time is done by :func:`permute_times`."""

    perturb: Perturbation = NOTHING
    seed: int = 0

    def model_inputs(self, device: DeviceName = "auto") -> ModelInputs:
        """Tensors on a device, perturbed."""
        return perturbed(super().model_inputs(device), self.perturb, self.seed)

    def fingerprint(self) -> str:
        """Digest of the tables' contents and of what is done to them."""
        own = super().fingerprint()
        return own if self.perturb == NOTHING else digest(own, self.perturb, self.seed)


def perturbed(inputs: ModelInputs, perturb: Perturbation, seed: int) -> ModelInputs:
    """The inputs with everything done to them but ``permuted_times``, which needs the tables.

    Args:
        inputs: as they are.
        perturb: what is done.
        seed: of who is exchanged and dropped; noise follows torch's global generator.
    """
    modalities = list(inputs.items.modalities)
    for name in perturb.absent:
        modalities[MODALITIES.index(name)] = without(modalities[MODALITIES.index(name)])
    if perturb.misaligned is not None:
        k = MODALITIES.index(perturb.misaligned.modality)
        modalities[k] = misaligned(modalities[k], perturb.misaligned.share, seed)
    if perturb.lag is not None:
        k = MODALITIES.index(perturb.lag.modality)
        tokens = perturb.lag.seconds / perturb.lag.token_seconds
        lag = torch.full((len(modalities[k].present),), tokens, device=inputs.device)
        modalities[k] = delayed(modalities[k], lag)
    items = type(inputs.items)(tuple(modalities))
    if perturb.noise is not None:
        items = NoisyTokens.of(items, perturb.noise)
    stream = inputs.stream
    if perturb.dropped_edges:
        stream = without_edges(stream, perturb.dropped_edges, seed)
    follows = inputs.follows
    if perturb.rewired_follows and follows is not None:
        follows = follows.rewired(seed)
    return replace(inputs, items=items, stream=stream, follows=follows)


def without(tokens: ModalTokens) -> ModalTokens:
    """The modality as if no item had it: no token, and ``present`` says so (METHODS §3.2)."""
    return ModalTokens(*(torch.zeros_like(t) for t in (tokens.x, tokens.mask, tokens.present)))


def misaligned(tokens: ModalTokens, share: float, seed: int) -> ModalTokens:
    """A share of the items that have the modality pass their tokens on to each other, in a ring: none keeps its own.

    Which items is drawn once per seed: those of a smaller share are among those of a larger one.
    """
    having = torch.nonzero(tokens.present).squeeze(1)
    generator = torch.Generator().manual_seed(seed)
    drawn = having[torch.randperm(len(having), generator=generator).to(having.device)]
    ring = drawn[: round(share * len(having))]
    source = torch.arange(len(tokens.present), device=having.device)
    source[ring] = ring.roll(1)
    return tokens.select(source)


@dataclass(frozen=True)
class NoisyTokens(ItemTokens):
    """Item tokens of which one modality carries noise, drawn anew at every reading.

    Noise that is fixed per video would work as the video's id, from which a network learns videos by heart.

    Attributes:
        modality: its place in ``tables.MODALITIES``.
        noise_sd: of every feature of a real token.
    """

    modality: int
    noise_sd: float

    @classmethod
    def of(cls, items: ItemTokens, options: NoiseOptions) -> Self:
        """Noise whose power is that of the modality's real tokens, all items together, over 10^(snr/10)."""
        k = MODALITIES.index(options.modality)
        tokens = items.modalities[k]
        power = float(tokens.x[tokens.mask].square().mean()) if tokens.mask.any() else 0.0
        return cls(items.modalities, k, (power / 10 ** (options.snr_db / 10)) ** 0.5)

    def select(self, items: Tensor) -> Self:
        """The rows of items (M,), with fresh noise."""
        modalities = [m.select(items) for m in self.modalities]
        own = modalities[self.modality]
        noise = self.noise_sd * torch.randn_like(own.x) * own.mask.unsqueeze(-1)
        modalities[self.modality] = replace(own, x=own.x + noise)
        return replace(self, modalities=tuple(modalities))


def without_edges(stream: EventStream, share: float, seed: int) -> EventStream:
    """The stream whose graph lacks a share of the events: they are learnt from and judged, but nobody sees them.

    Each event is dropped or not for its user and its item alike; those of a smaller share are among those of a larger one.
    """
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(len(stream), generator=generator).to(stream.user.device) >= share
    chosen = kept[stream.entry_position]
    key, position = stream.entry_key[chosen], stream.entry_position[chosen]
    nodes = torch.arange(stream.n_users + stream.n_items + 1, device=key.device)
    return replace(
        stream,
        # one entry that belongs to no node, so that an empty graph can be read
        entry_key=torch.cat([key, key.new_full((1,), _LAST_KEY)]),
        entry_position=torch.cat([position, position.new_zeros(1)]),
        node_offset=torch.searchsorted(key, nodes * stream.span),
    )


def permute_times(events: pl.DataFrame, seed: int) -> pl.DataFrame:
    """Each user's events change places in time, inside their split: times with their sessions, everything else stays.

    Rewards and links to the next row are no longer those of the new order: see ``rewarding.rewarded``.

    Args:
        events: as ``Events``.
        seed: of the permutation.

    Returns:
        The same columns, sorted by (ts_ms, row_id).
    """
    rng = np.random.default_rng(seed)
    ordered = events.sort("user_id", "split", "ts_ms", "row_id")
    shuffled = (
        ordered.with_columns(drawn=pl.Series(rng.random(events.height)))
        .sort("user_id", "split", "drawn")
        .drop("drawn")
    )
    # both are grouped alike, so the i-th row of a user's part meets another of the same part
    moved = shuffled.with_columns(ordered.select("ts_ms", "session_id"))
    return moved.sort("ts_ms", "row_id")
