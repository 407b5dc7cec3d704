"""How MT-DQN and its baselines learn: options, target network, the losses of a batch, one training run.

Source: MT-DQN (arXiv 2509.12269) Eq. 14, METHODS §3.8–§3.9. Shapes: B rows of a batch, C candidates.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reelrank.models.behaviours import BEHAVIOURS
from reelrank.models.event_stream import EventStream
from reelrank.models.inputs import ModelInputs
from reelrank.models.negatives import NegativeSampler
from reelrank.models.policy import Outputs, RankingModel
from reelrank.pipelines.mt_dqn.heads import ActionOutputs, CandidateHeads, Levels
from reelrank.pipelines.mt_dqn.lists import ListBatch
from reelrank.pipelines.mt_dqn.losses import behaviour_losses, best_next, masked_mean, td_target
from reelrank.pipelines.mt_dqn.model import MTDQN
from reelrank.pipelines.mt_dqn.options import LearningOptions
from reelrank.pipelines.mt_dqn.validation import failure_warnings, validate
from reelrank.training.loop import FitResult, fit
from reelrank.training.options import TrainOptions

log = logging.getLogger(__name__)


class TargetNetwork(nn.Module):
    """A frozen copy of the model that follows it, in evaluation mode.

    What a model keeps about its inputs (MT-DQN's item vectors) is recomputed with the copy's own weights every
    ``target_every`` steps: the trained model's would be of other weights, and of dropout.
    """

    def __init__(self, model: RankingModel, options: LearningOptions, inputs: ModelInputs) -> None:
        super().__init__()
        self.copy = deepcopy(model).requires_grad_(False).eval()
        self.options = options
        self.inputs = inputs

    @torch.no_grad()
    def after_step(self, model: RankingModel, step: int) -> None:
        """Follow the model, by the rule of the options."""
        is_due = step % self.options.target_every == 0
        if self.options.target_update == "soft":
            own: list[Tensor] = [*self.copy.parameters()]
            online: list[Tensor] = [*model.parameters()]
            torch._foreach_lerp_(own, online, self.options.tau)
        elif is_due:
            self.copy.load_state_dict(model.state_dict())
        if is_due:
            self.copy.refresh(self.inputs)


@dataclass(frozen=True)
class LearningContext:
    """What a step reads beside the model and the batch."""

    target: TargetNetwork
    inputs: ModelInputs
    sampler: NegativeSampler
    options: LearningOptions


def draw_candidates(
    sampler: NegativeSampler, items: Tensor, ts: Tensor, n: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The logged item and n negatives that were available at its time.

    Returns:
        items (B, 1 + n) and whether each is a candidate (false where nothing could be drawn).
    """
    negatives = sampler.sample(ts, n, generator)
    candidates = torch.cat([items.unsqueeze(1), negatives], dim=1)
    return candidates.clamp_min(0), candidates >= 0


def taken_q(outputs: Outputs, labels: Tensor) -> Tensor:
    """Q of what was logged: candidate 0, and where actions are behaviours the rarest that was observed, else to watch.

    Args:
        outputs: of the candidates.
        labels: (B, 3) watch, like, share; NaN = null.

    Returns:
        (B,).

    Source: METHODS §3.7 [D: one action a row, share before like before watch].
    """
    if not isinstance(outputs, ActionOutputs):
        return outputs.q[:, 0]
    is_like, is_share = labels[:, 1] == 1, labels[:, 2] == 1
    action = torch.where(is_share, 2, torch.where(is_like, 1, 0))
    return outputs.q_actions[:, 0].gather(1, action.unsqueeze(1)).squeeze(1)


def dqn_step(
    model: RankingModel,
    rows: Tensor,
    generator: torch.Generator,
    context: LearningContext,
) -> dict[str, Tensor]:
    """Losses of a batch for a model that learns Q: L_DQN, behaviours, immediate reward, value, link, confidence, CQL.

    Args:
        model: in training mode.
        rows: (B,) positions of events, train and not random exposures.
        generator: source of the negatives.
        context: target network, inputs, sampler, options.

    Returns:
        ``loss`` first, then its parts and the mean over the batch's largest |Q|.
    """
    inputs, options = context.inputs, context.options
    stream = inputs.stream
    users, items, ts = stream.user[rows], stream.item[rows], stream.ts_ms[rows]
    linked = model if isinstance(model, MTDQN) and model.link is not None else None
    n_here = max(options.negatives if options.cql_alpha > 0 else 0, int(linked is not None))
    candidates, available = draw_candidates(context.sampler, items, ts, n_here, generator)
    user_state, item_state = model.states(inputs, users, candidates, ts)
    outputs = model.head(user_state, item_state)
    q_next, value_next = _next_values(model, rows, generator, context)

    losses = _supervised_losses(outputs, value_next, rows, context)
    # MT-DQN Eq. 14
    reward = stream.td_reward(rows) if options.reward == "composite" else stream.r_immediate[rows]
    y = td_target(reward, q_next, options.gamma, options.limit)
    q = taken_q(outputs, stream.labels[rows])
    error = F.huber_loss(q, y.nan_to_num(0.0), reduction="none", delta=options.huber_delta)
    losses["dqn"] = masked_mean(error, ~y.isnan())
    total = torch.stack(list(losses.values())).sum()
    if linked is not None:
        losses["link"] = _link_loss(linked, user_state, item_state[:, :2], available[:, :2])
        total = total + options.link_weight * losses["link"]
    if isinstance(model, MTDQN) and model.learns_confidence:
        losses["confidence"] = model.confidence_loss(inputs, items)
        total = total + options.confidence_weight * losses["confidence"]
    if options.cql_alpha > 0:
        spread = outputs.q.masked_fill(~available, -torch.inf).logsumexp(1)
        losses["cql"] = (spread - q).mean()
        total = total + options.cql_alpha * losses["cql"]
    return {"loss": total, **losses, "q_abs_max": outputs.q.detach().abs().max()}


def supervised_step(
    model: RankingModel,
    rows: Tensor,
    generator: torch.Generator,
    context: LearningContext,
) -> dict[str, Tensor]:
    """Losses of a batch for a model without Q: behaviours, immediate reward and value. Arguments as ``dqn_step``."""
    inputs, stream = context.inputs, context.inputs.stream
    outputs = model(inputs, stream.user[rows], stream.item[rows].unsqueeze(1), stream.ts_ms[rows])
    logged_only = context.options.model_copy(update={"negatives": 0, "double": False})
    context = replace(context, options=logged_only)
    _, value_next = _next_values(model, rows, generator, context)
    losses = _supervised_losses(outputs, value_next, rows, context)
    return {"loss": torch.stack(list(losses.values())).sum(), **losses}


def learn(
    model: RankingModel,
    inputs: ModelInputs,
    val_lists: pl.DataFrame,
    sampler: NegativeSampler,
    *,
    train: TrainOptions,
    learning: LearningOptions,
    work_dir: Path,
    identity: Mapping[str, object],
) -> FitResult:
    """Train one model on the train part, in the order of time, and choose its epoch on the val part (L9).

    Args:
        model: fresh weights, built after ``seed_everything(train.seed)``, on the device of ``inputs``.
        inputs: events, items, users.
        val_lists: ``Lists.rows`` of the val part.
        sampler: of negatives, fitted on train.
        train: length and rates.
        learning: targets and losses.
        work_dir: where an unfinished run keeps its state.
        identity: name and options of the model, fingerprints of data and code.

    Raises:
        ValueError: no train row, or no val list to choose by.
    """
    if val_lists.is_empty():
        raise ValueError(
            "no val list with two items and both relevance levels: more days or users are needed to train"
        )
    model.refresh(inputs)
    for module in model.modules():
        if isinstance(module, CandidateHeads):
            module.start_at(levels_of(inputs.stream, learning))
    target = TargetNetwork(model, learning, inputs)
    lists = ListBatch.from_rows(val_lists, inputs.device)
    context = LearningContext(target, inputs, sampler, learning)
    step = dqn_step if model.learns_q else supervised_step

    def warn(history: Sequence[Mapping[str, float]]) -> None:
        before = failure_warnings(history[:-1], learning.limit) if len(history) > 1 else []
        known = {sentence.split(" is ")[0] for sentence in before}
        for sentence in failure_warnings(history, learning.limit):
            if sentence.split(" is ")[0] not in known:  # once, not every epoch
                log.warning(sentence)

    return fit(
        model,
        torch.nonzero(inputs.stream.trained_rows()).squeeze(1),
        step_fn=partial(step, context=context),
        clip_groups=_clip_groups(model),
        validate_fn=lambda m: validate(m, inputs, lists, learning.block_rows),
        options=train,
        work_dir=work_dir,
        identity={**identity, "learning": learning.model_dump(mode="json")},
        companion=target,
        on_epoch=warn,
    )


def levels_of(stream: EventStream, learning: LearningOptions) -> Levels:
    """Means of train rows (L2); Q's is the mean of its reward over as many discounted steps as are in a logged return."""
    rows = torch.nonzero(stream.trained_rows()).squeeze(1)
    immediate, composite = (r.nanmean() for r in (stream.r_immediate[rows], stream.td_reward(rows)))
    value = stream.value_return[rows].nanmean()
    steps = (value / composite).clamp(1.0, 1 / (1 - learning.gamma))
    learnt = composite if learning.reward == "composite" else immediate
    return Levels(
        q=float((steps * learnt).nan_to_num(0.0)),
        behaviours=stream.labels[rows].nanmean(0),
        value=float(value.nan_to_num(0.0)),
        reward=float(immediate.nan_to_num(0.0)),
    )


def _clip_groups(model: RankingModel) -> list[list[nn.Parameter]]:
    """The value head apart from the rest: in one clipped norm its gradient would scale theirs (METHODS §3.9)."""
    value = [p for name, p in model.named_parameters() if ".value." in name]
    others = [p for name, p in model.named_parameters() if ".value." not in name]
    return [group for group in (others, value) if group]


@torch.no_grad()
def _next_values(
    model: RankingModel, rows: Tensor, generator: torch.Generator, context: LearningContext
) -> tuple[Tensor, Tensor]:
    """Value of each row's next state under the best candidate and under the logged action: both (B,), 0 if done."""
    inputs, options = context.inputs, context.options
    stream = inputs.stream
    next_pos = stream.next_pos[rows]
    q_next, value_next = (torch.zeros(len(rows), device=rows.device) for _ in range(2))
    going_on = torch.nonzero(next_pos >= 0).squeeze(1)
    if not len(going_on):
        return q_next, value_next
    at = next_pos[going_on]
    users, ts = stream.user[at], stream.ts_ms[at]
    candidates, available = draw_candidates(
        context.sampler, stream.item[at], ts, options.negatives, generator
    )
    outputs = context.target.copy(inputs, users, candidates, ts)
    q_main = None
    if options.double:
        model.eval()  # the choice is made without dropout, as it would be online
        q_main = model(inputs, users, candidates, ts).q
        model.train()
    q_next[going_on] = best_next(outputs.q, available, q_main)
    value_next[going_on] = outputs.value[:, 0]
    return q_next, value_next


def _supervised_losses(
    outputs: Outputs, value_next: Tensor, rows: Tensor, context: LearningContext
) -> dict[str, Tensor]:
    """Behaviours, immediate reward and on-policy value of the logged items, candidate 0 of ``outputs``."""
    stream, options = context.inputs.stream, context.options
    behaviours = behaviour_losses(outputs.behaviour_logits[:, 0], stream.labels[rows])
    # METHODS §3.9: the composite reward for every model, so that values are comparable
    y = td_target(stream.td_reward(rows), value_next, options.gamma, options.limit)
    squared = (outputs.value[:, 0] - y.nan_to_num(0.0)) ** 2
    return {
        **dict(zip(BEHAVIOURS, behaviours, strict=True)),
        "reward": F.mse_loss(outputs.reward[:, 0], stream.r_immediate[rows]),
        "value": masked_mean(squared, ~y.isnan()),
    }


def _link_loss(model: MTDQN, user_state: Tensor, item_state: Tensor, available: Tensor) -> Tensor:
    """L_link = BCE(σ(MLP(h_u, h_v))): the logged item against one negative (B, 2)."""
    h_v = item_state[..., model.config.fusion.d_f :]
    logits = model.link_logits(user_state.unsqueeze(1).expand(-1, 2, -1), h_v)
    labels = torch.tensor([1.0, 0.0], device=logits.device).expand_as(logits)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return masked_mean(losses.flatten(), available.flatten())
