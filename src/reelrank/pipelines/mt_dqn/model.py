"""MT-DQN: cross-modal fusion, temporal graph network and a Q-network over candidates.

Source: MT-DQN (arXiv 2509.12269) Eq. 4–6, 11, 14; METHODS §3.2–§3.7.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.corruption import corrupted
from reelrank.models.fusion import Fused
from reelrank.models.fusion_layouts import fusion_network
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.policy import Outputs, RankingModel
from reelrank.models.registry import register
from reelrank.models.tgnn import graph_network
from reelrank.pipelines.mt_dqn.heads import CandidateHeads
from reelrank.pipelines.mt_dqn.options import MTDQNOptions

_REFRESH_ITEMS = 1024  # items fused at once, bounds memory


@register("mt_dqn", MTDQNOptions)
class MTDQN(RankingModel):
    """s = LayerNorm([f_v ‖ h_u ‖ h_v]), Q by 3 FC layers; the action is which candidate to show.

    The item memory holds f of every item without gradient: graph messages read it, since fusing every neighbour afresh
    would cost more than all else [D]. In training f of the batch's items is computed with gradient and written
    through; in evaluation f is read from the memory, which is exact after ``refresh(inputs)``. A target network needs
    ``refresh`` after each copy only if it shall not use the f that the copied model held.

    Args:
        config: sizes.
        spec: sizes of the inputs.
    """

    config: MTDQNOptions

    def __init__(self, config: MTDQNOptions, spec: InputSpec) -> None:
        super().__init__(config, spec)
        d_f, d_h = config.fusion.d_f, config.tgnn.d_h
        self.fusion = fusion_network(config.fusion, spec.token_lengths, spec.token_dims)
        self.tgnn = graph_network(config.tgnn, spec, d_f)
        self.heads = CandidateHeads(*self.state_dims, config.head)
        self.link = (
            nn.Sequential(nn.Linear(2 * d_h, d_h), nn.ReLU(), nn.Linear(d_h, 1))
            if config.link_head
            else None
        )
        self.register_buffer("item_memory", torch.zeros(spec.n_items, d_f))
        self.item_memory: Tensor

    @property
    def state_dims(self) -> tuple[int, int]:
        """Widths of a user state and of an item state."""
        d_f, d_h = self.config.fusion.d_f, self.config.tgnn.d_h
        return d_h, d_f + d_h * self.config.item_graph_state

    def user_state(self, inputs: ModelInputs, users: Tensor, ts: Tensor) -> Tensor:
        """h_u(t) of users (B,) at ts (B,): (B, d_h).

        Raises:
            RuntimeError: ``refresh`` was never called.
        """
        self._require_refreshed()
        h_u: Tensor = self.tgnn(inputs, users, ts, self.item_memory)
        return h_u

    def item_state(self, inputs: ModelInputs, items: Tensor, ts: Tensor) -> Tensor:
        """[f_v ‖ h_v(t)] of items (M,) at ts (M,): (M, d_f + d_h), or (M, d_f) without ``item_graph_state``.

        Raises:
            RuntimeError: ``refresh`` was never called.
        """
        self._require_refreshed()
        f = self._fused(inputs, items)
        if not self.config.item_graph_state:
            return f
        h_v = self.tgnn(inputs, inputs.stream.n_users + items, ts, self.item_memory)
        return torch.cat([f, h_v], dim=-1)

    def states(
        self, inputs: ModelInputs, users: Tensor, items: Tensor, ts: Tensor
    ) -> tuple[Tensor, Tensor]:
        """As ``user_state`` and ``item_state``, in one pass through the graph.

        Raises:
            RuntimeError: ``refresh`` was never called.
        """
        if not self.config.item_graph_state:
            return super().states(inputs, users, items, ts)
        self._require_refreshed()
        f = self._fused(inputs, items.flatten())
        nodes = torch.cat([users, inputs.stream.n_users + items.flatten()])
        times = torch.cat([ts, ts.unsqueeze(1).expand_as(items).flatten()])
        h = self.tgnn(inputs, nodes, times, self.item_memory)
        h_u, h_v = h[: len(users)], h[len(users) :]
        return h_u, torch.cat([f, h_v], dim=-1).view(*items.shape, -1)

    def head(self, user_state: Tensor, item_state: Tensor) -> Outputs:
        """Outputs for user states (B, Du) and item states (B or 1, C, Dv)."""
        outputs: Outputs = self.heads(user_state, item_state)
        return outputs

    def link_logits(self, h_u: Tensor, h_v: Tensor) -> Tensor:
        """Logit of an event between user (…, d_h) and item (…, d_h): (…,). h_v = ``item_state[..., d_f:]``.

        Raises:
            RuntimeError: the model was built without ``link_head``.
        """
        if self.link is None:
            raise RuntimeError("link_logits needs the option link_head: true")
        logits: Tensor = self.link(torch.cat([h_u, h_v], dim=-1)).squeeze(-1)
        return logits.float()

    def confidence_loss(self, inputs: ModelInputs, items: Tensor) -> Tensor:
        """L_conf = Σ_m BCE(c_m, 1 − corrupted_m) of items (B,), corrupted anew; mean over those that have the modality.

        Raises:
            RuntimeError: the model was built without ``corruption`` or ``fusion.confidence``.

        Source: METHODS §3.5.
        """
        if self.config.corruption is None:
            raise RuntimeError("confidence_loss needs the option corruption")
        own = inputs.items.select(torch.unique(items))
        return self.fusion.confidence_loss(*corrupted(own, self.config.corruption))

    @property
    def learns_confidence(self) -> bool:
        """Whether there is an L_conf."""
        return self.config.corruption is not None and self.config.fusion.confidence is not None

    def fuse(self, inputs: ModelInputs, items: Tensor) -> Fused:
        """Fuse items (M,) afresh: f and gate; for export and monitors."""
        fused: Fused = self.fusion(inputs.items.select(items))
        return fused

    def _fused(self, inputs: ModelInputs, items: Tensor) -> Tensor:
        """Vectors f of items (M,): with gradient in training, else from the memory."""
        return self._fuse_through(inputs, items) if self.training else self.item_memory[items]

    def _fuse_through(self, inputs: ModelInputs, items: Tensor) -> Tensor:
        """Fuse items (M,) with gradient, each distinct item fused once and written to the memory."""
        unique, inverse = torch.unique(items, return_inverse=True)
        if self.config.corruption is None:
            f = self.fuse(inputs, unique).f
            kept = f.detach()
        else:
            tokens, hit_MK = corrupted(inputs.items.select(unique), self.config.corruption)
            f = self.fusion(tokens).f
            # the memory keeps what it knows of an item that is corrupted here
            kept = torch.where(hit_MK.any(1, keepdim=True), self.item_memory[unique], f.detach())
        self.item_memory[unique] = kept.to(self.item_memory.dtype)
        return F.embedding(inverse, f)

    def _refresh(self, inputs: ModelInputs) -> None:
        was_training = self.fusion.training
        self.fusion.eval()
        for items in torch.split(
            torch.arange(self.spec.n_items, device=inputs.device), _REFRESH_ITEMS
        ):
            self.item_memory[items] = self.fuse(inputs, items).f.to(self.item_memory.dtype)
        self.fusion.train(was_training)
        self.tgnn.forget()
