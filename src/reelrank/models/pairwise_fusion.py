"""Layout ``mult`` of the fusion: each modality hears each other one in a stack of its own.

Source: METHODS §3.4 (MulT [R]). Shape suffixes as in ``fusion``: M items, D = d_model, H heads, K modalities; P = K·(K−1) ordered pairs, G
pairs or modalities that are computed side by side with weights of their own, T tokens of the longest modality, W = (K−1)·D.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.fusion import ModalFusion
from reelrank.models.item_tokens import ItemTokens
from reelrank.models.options import FusionOptions


class _Linears(nn.Module):
    """G linear layers in one product: (G, …, in) to (G, …, out)."""

    def __init__(self, groups: int, d_in: int, d_out: int) -> None:
        super().__init__()
        bound = d_in**-0.5  # as nn.Linear
        self.weight = nn.Parameter(torch.empty(groups, d_in, d_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(groups, 1, d_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x.flatten(1, -2), self.weight).view(*x.shape[:-1], -1)


class _Norms(nn.Module):
    """G layer norms: (G, M, T, width)."""

    def __init__(self, groups: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(groups, 1, 1, width))
        self.bias = nn.Parameter(torch.zeros(groups, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = F.layer_norm(x, x.shape[-1:]) * self.weight + self.bias
        return normed


class _AttentionLayers(nn.Module):
    """G pre-LN layers: tokens x ask, tokens of a source answer."""

    def __init__(self, groups: int, width: int, options: FusionOptions) -> None:
        super().__init__()
        self.heads = options.heads
        self.norm_query = _Norms(groups, width)
        self.norm_source = _Norms(groups, width)
        self.query = _Linears(groups, width, width)
        self.key_value = _Linears(groups, width, 2 * width)
        self.out = _Linears(groups, width, width)
        self.norm_ffn = _Norms(groups, width)
        self.ffn = nn.Sequential(
            _Linears(groups, width, options.ffn_multiple * width),
            nn.GELU(),
            _Linears(groups, options.ffn_multiple * width, width),
        )
        self.dropout = nn.Dropout(options.dropout)

    def heard(self, x_GMTD: Tensor, source_GMTD: Tensor, key_mask_GMT: Tensor) -> Tensor:
        """What the heads bring of the source, (G, M, T, H, D/H)."""
        q = self._split(self.query(self.norm_query(x_GMTD)))
        key, value = self.key_value(self.norm_source(source_GMTD)).chunk(2, dim=-1)
        mask = key_mask_GMT.flatten(0, 1)[:, None, None, :]
        # MT-DQN Eq. 4: softmax(Q Kᵀ/√d_k + log-mask) V
        heads = F.scaled_dot_product_attention(q, self._split(key), self._split(value), mask)
        return heads.transpose(1, 2).reshape(*x_GMTD.shape[:3], self.heads, -1)

    def forward(
        self, x_GMTD: Tensor, source_GMTD: Tensor, key_mask_GMT: Tensor, trust_GM: Tensor
    ) -> Tensor:
        message = self.out(self.heard(x_GMTD, source_GMTD, key_mask_GMT).flatten(3))
        x_GMTD = x_GMTD + self.dropout(message * trust_GM[:, :, None, None])
        out: Tensor = x_GMTD + self.dropout(self.ffn(self.norm_ffn(x_GMTD)))
        return out

    def _split(self, x_GMTD: Tensor) -> Tensor:
        """(G·M, H, T, D/H)."""
        tokens = x_GMTD.flatten(0, 1)
        return tokens.view(*tokens.shape[:2], self.heads, -1).transpose(1, 2)


class PairwiseFusion(ModalFusion):
    """For each ordered pair n → m a stack in which e_m asks e_n; then, inside m, attention over what all n told, side by side, and a residual MLP.

    An absent source tells nothing. With confidence what n tells is scaled by c_n: added to all logits of one modality's keys alone, log c_n
    would have no effect on their softmax.

    differs: a gate over the modalities follows (Eq. 6), where MulT concatenates them [D: the layouts differ in nothing else].
    """

    pair_target: Tensor
    pair_source: Tensor

    def _make_layers(self, options: FusionOptions, n_modalities: int) -> None:
        k, d, width = n_modalities, options.d_model, (n_modalities - 1) * options.d_model
        pairs = torch.tensor([(m, n) for m in range(k) for n in range(k) if n != m])
        self.register_buffer("pair_target", pairs[:, 0], persistent=False)
        self.register_buffer("pair_source", pairs[:, 1], persistent=False)
        self.pairs = nn.ModuleList(
            _AttentionLayers(len(pairs), d, options) for _ in range(options.layers)
        )
        self.norm_pairs = _Norms(len(pairs), d)
        self.selves = nn.ModuleList(
            _AttentionLayers(k, width, options) for _ in range(options.self_layers)
        )
        self.norm_selves = _Norms(k, width)
        self.residual = nn.Sequential(
            _Linears(k, width, width),
            nn.ReLU(),
            nn.Dropout(options.dropout),
            _Linears(k, width, width),
        )
        self.narrow = _Linears(k, width, d)
        self.norm = nn.LayerNorm(d)

    def _attended(
        self, e_MTD: Tensor, key_mask_MT: Tensor, log_c_MK: Tensor | None, tokens: ItemTokens
    ) -> tuple[Tensor, Tensor]:
        e_KMTD, mask_KMT = self._padded(e_MTD, tokens)
        present_MK = mask_KMT.any(2).T
        source_PMTD, key_mask_PMT, trust_PM = self._sources(e_KMTD, mask_KMT, log_c_MK)
        x_PMTD = e_KMTD[self.pair_target]
        for layer in self.pairs:
            x_PMTD = layer(x_PMTD, source_PMTD, key_mask_PMT, trust_PM)
        # the K−1 pairs of a target stand together
        x = self.norm_pairs(x_PMTD).unflatten(0, (len(e_KMTD), -1))
        x_KMTW = x.permute(0, 2, 3, 1, 4).flatten(3)
        own_mask_KMT = _open(mask_KMT)
        for layer in self.selves:
            x_KMTW = layer(x_KMTW, x_KMTW, own_mask_KMT, torch.ones_like(present_MK.T, dtype=x.dtype))  # fmt: skip
        weight_KMT = mask_KMT.to(x.dtype)
        total_KMW = (self.norm_selves(x_KMTW) * weight_KMT.unsqueeze(3)).sum(2)
        u_KMW = total_KMW / weight_KMT.sum(2, keepdim=True).clamp_min(1)
        z_KMD = self.norm(self.narrow(u_KMW + self.residual(u_KMW)))
        return z_KMD.transpose(0, 1) * present_MK.unsqueeze(2), present_MK

    @torch.no_grad()
    def attention_mass(self, tokens: ItemTokens) -> Tensor:
        """Size of what each modality n told m, as a share of what all others told it, (layers, H, K, K).

        A mean over items in which m and another are present; the softmax of a pair sums to 1 by itself and says nothing between pairs.
        """
        e_MTD, _ = self._embed(tokens)
        e_KMTD, mask_KMT = self._padded(e_MTD, tokens)
        log_c_MK = self._log_confidence(e_MTD, tokens)
        source_PMTD, key_mask_PMT, trust_PM = self._sources(e_KMTD, mask_KMT, log_c_MK)
        x_PMTD = e_KMTD[self.pair_target]
        asks_PMT1 = mask_KMT[self.pair_target].unsqueeze(3)
        k, layers = len(e_KMTD), []
        for layer in self.pairs:
            assert isinstance(layer, _AttentionLayers)
            told = layer.heard(x_PMTD, source_PMTD, key_mask_PMT).norm(dim=-1)
            size_PMH = (told * asks_PMT1).sum(2) * trust_PM.unsqueeze(2)
            size_MHKK = size_PMH.new_zeros(*size_PMH.shape[1:], k, k)
            size_MHKK[:, :, self.pair_target, self.pair_source] = size_PMH.permute(1, 2, 0)
            total_MHK1 = size_MHKK.sum(3, keepdim=True)
            share_MHKK = size_MHKK / total_MHK1.clamp_min(torch.finfo(told.dtype).tiny)
            layers.append(share_MHKK.sum(0) / (total_MHK1 > 0).sum(0).clamp_min(1))
            x_PMTD = layer(x_PMTD, source_PMTD, key_mask_PMT, trust_PM)
        return torch.stack(layers)

    def attention_per_token(self, tokens: ItemTokens) -> Tensor:
        """``attention_mass``: what a pair tells is a mean over the source's tokens, however many they are."""
        return self.attention_mass(tokens)

    def _padded(self, e_MTD: Tensor, tokens: ItemTokens) -> tuple[Tensor, Tensor]:
        """Tokens of each modality, (K, M, T, D), and which are real, (K, M, T)."""
        lengths = [m.x.shape[1] for m in tokens.modalities]
        longest = max(lengths)
        parts = torch.split(e_MTD, lengths, dim=1)
        e = [F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in parts]
        mask = [F.pad(m.mask, (0, longest - m.mask.shape[1])) for m in tokens.modalities]
        return torch.stack(e), torch.stack(mask)

    def _sources(
        self, e_KMTD: Tensor, mask_KMT: Tensor, log_c_MK: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of each pair's source: its tokens, the key mask, and how far it is heard (P, M): 0 if absent."""
        trust_KM = mask_KMT.any(2).to(e_KMTD.dtype)
        if log_c_MK is not None:
            trust_KM = trust_KM * log_c_MK.exp().T
        source = self.pair_source
        return e_KMTD[source], _open(mask_KMT)[source], trust_KM[source]


def _open(mask: Tensor) -> Tensor:
    """The mask, open everywhere where nothing is real: a softmax over nothing is NaN, and nobody hears it."""
    return mask | ~mask.any(-1, keepdim=True)
