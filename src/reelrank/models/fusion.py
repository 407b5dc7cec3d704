"""Cross-modal transformer with a gate: the tokens of three modalities become one vector per item.

Source: MT-DQN (arXiv 2509.12269) Eq. 4–6, METHODS §3.3–§3.4. Shape suffixes: M items, T tokens of all modalities
together, D = d_model, H heads, K = 3 modalities.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.item_tokens import ItemTokens, ModalTokens
from reelrank.models.options import ConfidenceOptions, FusionOptions


class Fused(NamedTuple):
    """f (M, d_f) and the gate: (M, K), or (M, K, D) when vector; 0 for an absent modality."""

    f: Tensor
    gate: Tensor


class Confidence(nn.Module):
    """c_m = σ(MLP([z_m ‖ q_m])): how far modality m of an item is to be trusted, a network per modality.

    q_m = [‖z_m‖/√d, variance of its tokens, share of blank ones, cosine with the mean of the other modalities, present]; z_m is the
    mean of the embedded tokens before any attention, since attention already asks for c.

    Source: METHODS §3.5.

    Args:
        options: width.
        d_model: width of z.
        n_modalities: K.
    """

    def __init__(self, options: ConfidenceOptions, d_model: int, n_modalities: int) -> None:
        super().__init__()
        self.networks = nn.ModuleList(
            nn.Sequential(
                nn.Linear(d_model + 5, options.hidden), nn.ReLU(), nn.Linear(options.hidden, 1)
            )
            for _ in range(n_modalities)
        )

    def forward(self, tokens: ItemTokens, z_MKD: Tensor, present_MK: Tensor) -> Tensor:
        """Log of c (M, K) of M items from their tokens, z and presence."""
        weight_MK1 = present_MK.unsqueeze(2).to(z_MKD.dtype)
        total_M1D = (weight_MK1 * z_MKD).sum(1, keepdim=True)
        n_others_MK1 = (weight_MK1.sum(1, keepdim=True) - weight_MK1).clamp_min(1)
        others_MKD = (total_M1D - weight_MK1 * z_MKD) / n_others_MK1
        columns = [
            z_MKD.norm(dim=2) / z_MKD.shape[2] ** 0.5,
            torch.stack([_token_variance(m) for m in tokens.modalities], 1),
            torch.stack([1 - m.x.any(2).to(z_MKD.dtype).mean(1) for m in tokens.modalities], 1),
            F.cosine_similarity(z_MKD, others_MKD, dim=2),
            present_MK.to(z_MKD.dtype),
        ]
        q_MK5 = torch.stack(columns, dim=2)
        evidence = torch.cat([z_MKD, q_MK5], dim=2)
        logits = [network(evidence[:, k]) for k, network in enumerate(self.networks)]
        return F.logsigmoid(torch.cat(logits, dim=1).float())


def _token_variance(own: ModalTokens) -> Tensor:
    """Mean over features of the variance between an item's tokens, (M,)."""
    mask = own.mask.unsqueeze(2)
    n = own.mask.sum(1).clamp_min(1)
    mean = (own.x * mask).sum(1) / n.unsqueeze(1)
    return ((own.x - mean.unsqueeze(1)).square() * mask).mean(2).sum(1) / n


class _EncoderLayer(nn.Module):
    """Pre-LN transformer layer; dropout acts on the residual branches, so that the fused attention kernel serves."""

    def __init__(self, options: FusionOptions) -> None:
        super().__init__()
        d = options.d_model
        self.heads = options.heads
        self.norm_attention = nn.LayerNorm(d)
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.norm_ffn = nn.LayerNorm(d)
        self.ffn = nn.Sequential(
            nn.Linear(d, options.ffn_multiple * d),
            nn.GELU(),
            nn.Linear(options.ffn_multiple * d, d),
        )
        self.dropout = nn.Dropout(options.dropout)

    def project(self, e_MTD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (M, H, T, D/H)."""
        qkv = self.qkv(self.norm_attention(e_MTD))
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def forward(self, e_MTD: Tensor, key_mask_MT: Tensor) -> Tensor:
        # MT-DQN Eq. 4–5: head_h = softmax(Q_h K_hᵀ/√d_k + log-mask) V_h
        q, k, v = self.project(e_MTD)
        heads = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask_MT[:, None, None, :])
        e_MTD = e_MTD + self.dropout(self.out(heads.transpose(1, 2).flatten(2)))
        out: Tensor = e_MTD + self.dropout(self.ffn(self.norm_ffn(e_MTD)))
        return out


class ModalFusion(nn.Module, ABC):
    """Eq. 6: f = W_f Σ_m g_m z_m with g = softmax(W_g [z_v‖z_a‖z_t] + b + log present), whatever layout makes z_m of the tokens.

    With confidence c, g ∝ softmax(·) ⊙ c, and the layout attends less to what is not trusted (METHODS §3.5).

    Args:
        options: sizes.
        token_lengths: T_m of each modality.
        token_dims: D_m of each modality.
    """

    def __init__(
        self, options: FusionOptions, token_lengths: tuple[int, ...], token_dims: tuple[int, ...]
    ) -> None:
        super().__init__()
        d, k = options.d_model, len(token_dims)
        self.options = options
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, d), nn.LayerNorm(d)) for dim in token_dims
        )
        self.type_embedding = nn.Parameter(torch.empty(k, d))
        self.position = nn.ParameterList(torch.empty(length, d) for length in token_lengths)
        for embedding in (self.type_embedding, *self.position):
            nn.init.normal_(embedding, std=0.02)
        self.confidence = (
            None if options.confidence is None else Confidence(options.confidence, d, k)
        )
        self._make_layers(options, k)
        self.gate = (
            None
            if options.gate == "even"
            else nn.Linear(k * d, k if options.gate == "scalar" else k * d)
        )
        self.out = nn.Linear(d, options.d_f)

    def forward(self, tokens: ItemTokens) -> Fused:
        """Fuse the given items.

        Args:
            tokens: of M items (``ItemTokens.select``).

        Returns:
            f (M, d_f) and gate; an item without any modality gets gate 0 and f = the output bias.
        """
        e_MTD, key_mask_MT = self._embed(tokens)
        log_c_MK = self._log_confidence(e_MTD, tokens)
        z_MKD, present_MK = self._attended(e_MTD, key_mask_MT, log_c_MK, tokens)
        gate = self._gate(z_MKD, present_MK, log_c_MK)
        weights = gate.unsqueeze(-1) if gate.dim() == 2 else gate
        return Fused(self.out((weights * z_MKD).sum(1)), gate)

    @abstractmethod
    def attention_mass(self, tokens: ItemTokens) -> Tensor:
        """How much modality m's tokens hear of modality n, (layers, H, K, K); rows sum to 1, or to 0 where no item has m.

        For export: the training path never builds these weights.
        """

    @abstractmethod
    def attention_per_token(self, tokens: ItemTokens) -> Tensor:
        """``attention_mass`` in which every modality would have the same if attention were even."""

    @abstractmethod
    def _make_layers(self, options: FusionOptions, n_modalities: int) -> None:
        """The layers between embedding and gate."""

    @abstractmethod
    def _attended(
        self, e_MTD: Tensor, key_mask_MT: Tensor, log_c_MK: Tensor | None, tokens: ItemTokens
    ) -> tuple[Tensor, Tensor]:
        """Z (M, K, D) and presence (M, K) from embedded tokens."""

    def log_confidence(self, tokens: ItemTokens) -> Tensor:
        """Log of c (M, K), before any attention.

        Raises:
            RuntimeError: the fusion was built without ``confidence``.
        """
        log_c_MK = self._log_confidence(self._embed(tokens)[0], tokens)
        if log_c_MK is None:
            raise RuntimeError("log_confidence needs the option fusion.confidence")
        return log_c_MK

    def confidence_loss(self, tokens: ItemTokens, corrupted_MK: Tensor) -> Tensor:
        """L_conf = Σ_m BCE(c_m, 1 − corrupted_m), mean over the items that have the modality.

        Args:
            tokens: of M items.
            corrupted_MK: bool, which modality of which item is not to be trusted.

        Raises:
            RuntimeError: the fusion was built without ``confidence``.

        Source: METHODS §3.5.
        """
        log_c_MK = self.log_confidence(tokens)
        # log(1 − c) by way of log c, which is below 0 by rounding alone where c = 1
        log_not_c_MK = torch.log(-torch.expm1(log_c_MK.clamp_max(-1e-7)))
        present_MK = torch.stack([m.mask.any(1) for m in tokens.modalities], dim=1)
        losses_MK = -torch.where(corrupted_MK, log_not_c_MK, log_c_MK) * present_MK
        return (losses_MK.sum(0) / present_MK.sum(0).clamp_min(1)).sum()

    def _log_confidence(self, e_MTD: Tensor, tokens: ItemTokens) -> Tensor | None:
        if self.confidence is None:
            return None
        log_c_MK: Tensor = self.confidence(tokens, *self._pool(e_MTD, tokens))
        return log_c_MK

    def _embed(self, tokens: ItemTokens) -> tuple[Tensor, Tensor]:
        """e_m = LayerNorm(W_m x_m) + type_m + pos of all modalities, (M, T, D), and the key mask (M, T)."""
        e = [
            project(m.x) + self.type_embedding[i] + position
            for i, (m, project, position) in enumerate(
                zip(tokens.modalities, self.project, self.position, strict=True)
            )
        ]
        mask = torch.cat([m.mask for m in tokens.modalities], dim=1)
        # an item without any token attends everywhere, for a softmax over nothing is NaN; its gate is 0
        return torch.cat(e, dim=1), mask | ~mask.any(1, keepdim=True)

    def _pool(self, e_MTD: Tensor, tokens: ItemTokens) -> tuple[Tensor, Tensor]:
        """Masked mean of each modality, (M, K, D), and presence (M, K)."""
        parts = torch.split(e_MTD, [m.x.shape[1] for m in tokens.modalities], dim=1)
        z = [
            (part * m.mask.unsqueeze(-1)).sum(1) / m.mask.sum(1, keepdim=True).clamp_min(1)
            for part, m in zip(parts, tokens.modalities, strict=True)
        ]
        return torch.stack(z, dim=1), torch.stack([m.mask.any(1) for m in tokens.modalities], dim=1)

    def _gate(self, z_MKD: Tensor, present_MK: Tensor, log_c_MK: Tensor | None) -> Tensor:
        if self.gate is None:
            trust = present_MK if log_c_MK is None else present_MK * log_c_MK.exp()
            floor = 1 if log_c_MK is None else torch.finfo(trust.dtype).tiny
            return trust / trust.sum(1, keepdim=True).clamp_min(floor)
        # MT-DQN Eq. 6
        logits = self.gate(z_MKD.flatten(1))
        if self.options.gate == "vector":
            gate = torch.sigmoid(logits).view_as(z_MKD) * present_MK.unsqueeze(-1)
            return gate if log_c_MK is None else gate * log_c_MK.exp().unsqueeze(-1)
        if log_c_MK is not None:  # softmax(x + log c) ∝ softmax(x) ⊙ c
            logits = logits + log_c_MK
        # log 0 as the smallest float: exactly 0 after softmax, and no NaN where nothing is present
        logits = logits.masked_fill(~present_MK, torch.finfo(logits.dtype).min)
        return torch.softmax(logits, dim=-1) * present_MK


class CrossModalFusion(ModalFusion):
    """Layout ``joint``, Eq. 4–5: the tokens of all modalities in one sequence, every token attends to every other.

    With confidence log c_m is added to the attention to modality m's tokens.
    """

    @torch.no_grad()
    def attention_mass(self, tokens: ItemTokens) -> Tensor:
        """Mean attention of modality m's tokens to modality n's, (layers, H, K, K).

        Averages over items in which m is present, so each row sums to 1 (0 where no item has m).
        """
        e_MTD, key_mask_MT = self._embed(tokens)
        key_mask_MT = self._trusted(key_mask_MT, self._log_confidence(e_MTD, tokens), tokens)
        owner_TK = self._owner(tokens)
        query_MTK = torch.cat([m.mask for m in tokens.modalities], 1).unsqueeze(-1) * owner_TK
        n_queries_MK = query_MTK.sum(1)
        n_items_K = (n_queries_MK > 0).sum(0).clamp_min(1)
        layers = []
        for layer in self.layers:
            assert isinstance(layer, _EncoderLayer)
            q, k, _ = layer.project(e_MTD)
            logits = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
            mask = key_mask_MT[:, None, None, :]
            hidden = mask.dtype == torch.bool
            logits = logits.masked_fill(~mask, -math.inf) if hidden else logits + mask
            to_modality = torch.softmax(logits, -1) @ owner_TK  # (M, H, T, K)
            mass_MHKK = torch.einsum("mtk,mhtn->mhkn", query_MTK, to_modality)
            mass_MHKK = mass_MHKK / n_queries_MK.clamp_min(1)[:, None, :, None]
            layers.append(mass_MHKK.sum(0) / n_items_K[None, :, None])
            e_MTD = layer(e_MTD, key_mask_MT)
        heads, kinds = self.options.heads, owner_TK.shape[1]
        return torch.stack(layers) if layers else e_MTD.new_zeros(0, heads, kinds, kinds)

    def attention_per_token(self, tokens: ItemTokens) -> Tensor:
        """Mass per token: a modality with twice the tokens draws twice the mass when attention is even."""
        n_tokens = torch.stack([m.mask.sum() for m in tokens.modalities]).clamp_min(1)
        return self.attention_mass(tokens) / n_tokens

    def _make_layers(self, options: FusionOptions, n_modalities: int) -> None:
        self.layers = nn.ModuleList(_EncoderLayer(options) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.d_model)

    def _attended(
        self, e_MTD: Tensor, key_mask_MT: Tensor, log_c_MK: Tensor | None, tokens: ItemTokens
    ) -> tuple[Tensor, Tensor]:
        key_mask_MT = self._trusted(key_mask_MT, log_c_MK, tokens)
        for layer in self.layers:
            e_MTD = layer(e_MTD, key_mask_MT)
        return self._pool(self.norm(e_MTD), tokens)

    def _trusted(self, mask_MT: Tensor, log_c_MK: Tensor | None, tokens: ItemTokens) -> Tensor:
        """The mask of keys; with confidence what is added to their logits: log c of the token's modality, −∞ under the mask."""
        if log_c_MK is None:
            return mask_MT
        lengths = torch.tensor([m.x.shape[1] for m in tokens.modalities], device=mask_MT.device)
        log_c_MT = log_c_MK.repeat_interleave(lengths, dim=1)
        return log_c_MT.masked_fill(~mask_MT, -math.inf)

    def _owner(self, tokens: ItemTokens) -> Tensor:
        """(T, K) float: 1 where token t belongs to modality k."""
        lengths = torch.tensor([m.x.shape[1] for m in tokens.modalities])
        owner = torch.repeat_interleave(torch.arange(len(lengths)), lengths)
        return F.one_hot(owner, len(lengths)).float().to(self.type_embedding.device)
