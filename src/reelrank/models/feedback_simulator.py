r"""Feedback simulator of MMRF: what a user would have answered to a video that was not shown, and how sure that is.

A GRU reads (item, feedback); two predictors f¹ and f² on [ŝ_t ‖ x_c] learn the seven responses, f² under dropout that stays on when it
predicts. Their disagreement is the uncertainty:

.. math:: KL_k = \frac{(f^1_k - f^2_k)^2}{2\sigma_k^2}, \qquad \hat r_k = \tfrac12 (f^1_k + f^2_k) + \kappa \min(KL_k, 1)

with σ_k² the running residual variance of f¹ in standardised units.

Source: METHODS §4.6, MMRF (arXiv 2405.01847) Eq. 5 and 6. Differs: heads also read scenario and hour (``context``), and ŝ_0 the user's
attributes [D: the rates of KuaiRand's tabs differ tenfold, and a simulator without them is not calibrated in any].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from reelrank.models.feed import (
    HATE,
    PAD,
    WATCH_TIME,
    FeedBatch,
    FeedInputs,
    ItemFeatures,
)
from reelrank.models.feed_encoder import CodeEmbedding, FeedSpec
from reelrank.models.feed_windows import RowRoles, Windows, in_batches, local_hour
from reelrank.models.feedback_calibration import N_RESPONSES, ResponseCalibration
from reelrank.models.feedback_options import SimulatedRewardOptions, SimulatorOptions
from reelrank.models.tensor_record import TensorRecord

EPS = 1e-6
HOURS = 24


@dataclass(frozen=True)
class Predicted(TensorRecord):
    """Predictions of N rows.

    Attributes:
        row: (N,) int64 row of ``FeedRows``.
        response: (N, 7) ½(f¹ + f²), units of the responses, not calibrated.
        calibrated: (N, 7) the same through the calibration maps: probabilities, and seconds.
        kl: (N, 7) uncertainty, f² under dropout.
    """

    row: Tensor
    response: Tensor
    calibrated: Tensor
    kl: Tensor


@dataclass(frozen=True)
class Simulated(TensorRecord):
    """Non-impressions, n of each of B states.

    Attributes:
        reward: (B, n, 7) r̂ of Eq. 6 in train sds, hate negative.
        response: (B, n, 7) ½(f¹ + f²), units of the responses.
        kl: (B, n, 7).
    """

    reward: Tensor
    response: Tensor
    kl: Tensor


def eq6(mean: Tensor, kl: Tensor, options: SimulatedRewardOptions) -> Tensor:
    """Simulated reward r̂ from the mean prediction and the uncertainty, of one shape. Source: METHODS §4.6, MMRF Eq. 6."""
    bonus = options.kappa * kl.clamp(max=options.cap)
    if options.form == "additive":
        return mean + bonus
    return mean * (1 + bonus if options.form == "multiplicative" else bonus.exp())


def bernoulli_kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p ‖ q) of Bernoulli probabilities, clipped to [1e-6, 1 − 1e-6] first (a squared loss bounds nothing)."""
    p, q = p.clamp(EPS, 1 - EPS), q.clamp(EPS, 1 - EPS)
    return p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()


class _Predictor(nn.Module):
    """One hidden layer and seven heads; dropout only where a generator is given."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.hidden, self.heads = nn.Linear(width, hidden), nn.Linear(hidden, N_RESPONSES)
        self.dropout = dropout

    def forward(self, x: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """(…, width) → (…, 7)."""
        h = self.hidden(x).relu()
        if self.dropout and generator is not None:
            kept = torch.rand(h.shape, generator=generator, device=h.device) >= self.dropout
            h = h * kept / (1 - self.dropout)
        out: Tensor = self.heads(h)
        return out


class FeedbackSimulator(nn.Module):
    """State model, the two predictors, calibration; rewards and draws of responses.

    Args:
        options: sizes and losses.
        spec: sizes of the tables.
        items: attributes of all items, kept beside the weights and not stored with them.
    """

    def __init__(self, options: SimulatorOptions, spec: FeedSpec, items: ItemFeatures) -> None:
        super().__init__()
        self.options, self.spec = options, spec
        o = options
        # torch's N(0, 1): on items that training hardly shows, small vectors would leave f¹ and f² in agreement
        self.id = nn.Embedding(spec.n_items, o.d_id)
        self.attributes = CodeEmbedding(spec.item_cardinalities, o.d_attributes)
        self.user = CodeEmbedding(spec.user_cardinalities, o.d_state)
        self.scenario = nn.Embedding(spec.n_scenarios + 1, o.d_context)  # 0 = none of train
        self.hour = nn.Embedding(HOURS, o.d_context)
        x = o.d_id + o.d_attributes
        self.gru = nn.GRU(x + 2 * N_RESPONSES, o.d_state, batch_first=True)
        width = o.d_state + x + 2 * o.d_context * o.context
        second = o.dropout if o.uncertainty == "siamese" else 0.0
        self.f1 = _Predictor(width, o.hidden, 0.0)
        self.f2 = _Predictor(width, o.hidden, second)
        self.match = _Predictor(width, o.hidden, 0.0) if o.uncertainty == "rnd" else None
        self.f2.requires_grad_(o.uncertainty == "siamese")
        self.register_buffer("codes", items.codes.int(), persistent=False)
        self.register_buffer("known", torch.ones(N_RESPONSES, dtype=torch.bool))
        self.register_buffer("mean", torch.zeros(N_RESPONSES))
        self.register_buffer("sd", torch.ones(N_RESPONSES))
        self.register_buffer("variance", torch.ones(N_RESPONSES))
        self.calibration = ResponseCalibration()
        sign = torch.ones(N_RESPONSES)
        sign[HATE] = -1.0
        self.register_buffer("sign", sign, persistent=False)
        self.codes: Tensor
        self.known: Tensor
        self.mean: Tensor
        self.sd: Tensor
        self.variance: Tensor
        self.sign: Tensor

    def config(self) -> dict[str, Any]:
        """JSON that, with the weights and the items, rebuilds the simulator."""
        return {
            "name": "feedback_simulator",
            "options": self.options.model_dump(mode="json"),
            "spec": self.spec.model_dump(mode="json"),
        }

    @classmethod
    def from_checkpoint(
        cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor], items: ItemFeatures
    ) -> Self:
        """The simulator that ``config()`` and ``state_dict()`` describe.

        Raises:
            ValueError: it is another model's checkpoint, or ``items`` are not those it was trained on.
        """
        if config.get("name") != "feedback_simulator":
            raise ValueError(f"not a feedback simulator but {config.get('name')!r}")
        spec = FeedSpec.model_validate(config["spec"])
        given = len(items.codes), tuple(items.cardinalities)
        if given != (spec.n_items, spec.item_cardinalities):
            raise ValueError(
                f"items have (n, cardinalities) {given}, the simulator was trained on "
                f"{(spec.n_items, spec.item_cardinalities)}: load the items of its run"
            )
        model = cls(SimulatorOptions.model_validate(config["options"]), spec, items)
        model.load_state_dict(dict(tensors))
        return model.eval()

    def set_scales(self, response: Tensor) -> None:
        """Mean and sd of each response over the training rows (N, 7); a response that none of them knows is left out.

        Raises:
            ValueError: no response is known in any row.
        """
        response = self.winsorised(response)
        known = ~response.isnan()
        count = known.sum(0)
        if not bool(known.any()):
            raise ValueError("the training rows know none of the responses: nothing to simulate")
        mean = response.nan_to_num().sum(0) / count.clamp(min=1)
        square = ((response - mean).nan_to_num() ** 2).sum(0) / count.clamp(min=1)
        self.known.copy_(count > 0)
        self.mean.copy_(mean)
        self.sd.copy_(torch.where(square > 0, square.sqrt(), 1.0))

    def winsorised(self, response: Tensor) -> Tensor:
        """Watch time (…, 7) capped. Source: METHODS §4.2."""
        capped = response.clone()
        capped[..., WATCH_TIME].clamp_(max=self.options.watch_cap_s)
        return capped

    def standardised(self, response: Tensor) -> Tensor:
        """Responses (…, 7) in train sds from the train mean; NaN stays."""
        return (self.winsorised(response) - self.mean) / self.sd

    def reward(self, response: Tensor) -> Tensor:
        """Rewards (…, 7) in train sds, hate negative. Source: METHODS §4.2."""
        return self.sign * self.winsorised(response) / self.sd

    def item_vectors(self, items: Tensor) -> Tensor:
        """(…,) item ids → (…, 48); any vector at a pad."""
        items = items.clamp(min=0)
        return torch.cat([self.id(items), self.attributes(self.codes[items].long())], -1)

    def first_state(self, user_codes: Tensor) -> Tensor:
        """(B, F) codes → ŝ_0 (B, 128)."""
        return torch.tanh(self.user(user_codes))

    def _read(self, items: Tensor, standardised: Tensor) -> Tensor:
        """What the GRU reads of shown items (…,) and their standardised responses (…, 7)."""
        unknown = standardised.isnan()
        parts = [self.item_vectors(items), standardised.nan_to_num(), unknown.float()]
        return torch.cat(parts, -1)

    def states(self, user_codes: Tensor, items: Tensor, response: Tensor) -> Tensor:
        """States before and after every row of left-aligned sequences: (B, T), (B, T, 7) → (B, T + 1, 128)."""
        first = self.first_state(user_codes)
        out, _ = self.gru(self._read(items, self.standardised(response)), first[None])
        return torch.cat([first[:, None], out], 1)

    def state(self, batch: FeedBatch) -> Tensor:
        """ŝ_t (B, 128) after the history of ``batch``."""
        n = (batch.history != PAD).sum(1)
        length = batch.history.shape[1]
        # left-aligned: what stands before the first row must not move the state
        place = torch.arange(length, device=n.device) + (length - n)[:, None]
        place = place.clamp(max=length - 1)
        items = batch.history.gather(1, place)
        feedback = batch.feedback.gather(1, place[..., None].expand(-1, -1, N_RESPONSES))
        every = self.states(batch.user_codes, items, feedback)
        return every[torch.arange(len(n), device=n.device), n]

    def step(self, state: Tensor, items: Tensor, response: Tensor) -> Tensor:
        """One GRU step: ŝ (B, 128), items (B,), responses (B, 7) → ŝ (B, 128); pads leave a state as it is."""
        _, after = self.gru(self._read(items, self.standardised(response))[:, None], state[None])
        return torch.where((items != PAD)[:, None], after[0], state)

    def features(self, state: Tensor, items: Tensor, scenario: Tensor, hour: Tensor) -> Tensor:
        """[ŝ ‖ x ‖ context] (…, d) of states (…, 128), items, scenarios and hours (…,)."""
        parts = [state, self.item_vectors(items)]
        if self.options.context:
            known = scenario < self.spec.n_scenarios
            parts += [self.scenario((scenario + 1) * known), self.hour(hour)]
        return torch.cat(parts, -1)

    def _pair(self, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
        """Mean prediction, and the two whose disagreement counts, standardised (…, 7)."""
        one = self.f1(x)
        if self.match is not None:  # RND: novelty of x, apart from the prediction
            return one, self.match(x), self.f2(x)
        two = self.f2(x, generator)
        return 0.5 * (one + two), one, two

    def divergence(self, one: Tensor, two: Tensor) -> Tensor:
        """KL of two standardised predictions (…, 7). Source: METHODS §4.6 [D]."""
        kl = (one - two).square() / (2 * self.variance)
        if self.options.kl == "bernoulli":
            exact = bernoulli_kl(self.mean + self.sd * one, self.mean + self.sd * two)
            kl = torch.cat([exact[..., :WATCH_TIME], kl[..., WATCH_TIME:]], -1)
        return kl

    def predict(self, x: Tensor) -> Tensor:
        """½(f¹ + f²) (…, 7) in the responses' units, without dropout."""
        return self.mean + self.sd * self._pair(x, None)[0]

    def calibrated(self, response: Tensor) -> Tensor:
        """Predictions (…, 7) through the calibration; NaN for a response that training never saw."""
        return torch.where(self.known, self.calibration(response), torch.nan)

    def simulate(
        self,
        batch: FeedBatch,
        slots: Tensor,
        generator: torch.Generator,
        options: SimulatedRewardOptions,
    ) -> Simulated:
        """Rewards of candidates that were not shown.

        Args:
            batch: B states and their candidates.
            slots: (B, n) places among the candidates.
            generator: of dropout and noise, on the simulator's device.
            options: Eq. 6.
        """
        items = batch.candidates.gather(1, slots)
        state = self.state(batch)[:, None].expand(-1, slots.shape[1], -1)
        where = (batch.scenario[:, None].expand_as(slots), batch.hour[:, None].expand_as(slots))
        mean, one, two = self._pair(self.features(state, items, *where), generator)
        kl = self.divergence(one, two)
        response = self.mean + self.sd * mean
        reward = eq6(self.sign * response / self.sd, kl, options)
        if options.noise_sd:
            noise = torch.randn(reward.shape, generator=generator, device=reward.device)
            reward = reward + options.noise_sd * noise
        return Simulated(reward + options.bias, response, kl)

    def _window_features(
        self, inputs: FeedInputs, roles: RowRoles, windows: Windows, wanted: Tensor
    ) -> tuple[Tensor, Tensor]:
        """[ŝ ‖ x ‖ context] of every ``wanted`` row (R,) bool that the windows predict, and those rows."""
        rows = inputs.rows
        length = int((windows.stop - windows.start).max())
        place = windows.start[:, None] + torch.arange(length, device=windows.start.device)
        inside = place < windows.stop[:, None]
        place = place.clamp(max=len(rows.item) - 1)
        states = self.states(
            inputs.users.codes[windows.user], rows.item[place], rows.response[place]
        )
        chosen = inside & (place >= windows.target[:, None]) & wanted[place]
        window, _ = chosen.nonzero(as_tuple=True)
        row = place[chosen]
        at = (roles.state_row[row] - windows.start[window]).clamp(min=0)
        hour = local_hour(rows.ts_ms[roles.state_row[row]])
        x = self.features(states[window, at], rows.item[row], roles.scenario[row], hour)
        return x, row

    def losses(
        self,
        inputs: FeedInputs,
        roles: RowRoles,
        windows: Windows,
        wanted: Tensor,
        generator: torch.Generator | None,
    ) -> dict[str, Tensor]:
        """Eq. 5 on the ``wanted`` rows of some windows.

        Args:
            inputs: the feed.
            roles: of its rows.
            windows: W of them.
            wanted: (R,) bool, rows to learn from.
            generator: of the dropout; None: without, and the running variance is left alone.

        Returns:
            ``loss`` (what to minimise), ``fit`` and ``kl``: scalars. Responses that were not logged count nowhere.
        """
        x, row = self._window_features(inputs, roles, windows, wanted)
        target = self.standardised(inputs.rows.response[row])
        known = ~target.isnan()
        target, count = target.nan_to_num(), known.sum(0).clamp(min=1)
        _, one, two = self._pair(x, generator)
        first = self.f1(x) if self.match is not None else one

        def per_head(values: Tensor) -> Tensor:
            return (values * known).sum(0) / count

        residual = per_head((target - first).square())
        # Eq. 5; under RND f² is no predictor and its matcher learns it instead
        second = per_head((target - two if self.match is None else two.detach() - one).square())
        kl = per_head(self.divergence(one, two))
        if generator is not None:
            self._update_variance((second if self.match is not None else residual).detach(), count)
        loss = residual.sum() + second.sum()
        if self.options.kl_in_loss == "rdrop":
            back = per_head(self.divergence(two, one))
            loss = loss + self.options.rdrop_alpha * 0.5 * (kl + back).sum()
        return {"loss": loss, "fit": residual.sum().detach(), "kl": kl.sum().detach()}

    def _update_variance(self, residual: Tensor, count: Tensor) -> None:
        moved = torch.lerp(residual.clamp(min=EPS), self.variance, self.options.variance_decay)
        self.variance.copy_(torch.where(count > 1, moved, self.variance))

    @torch.no_grad()
    def predict_rows(
        self,
        inputs: FeedInputs,
        roles: RowRoles,
        windows: Windows,
        wanted: Tensor,
        *,
        seed: int,
        batch_size: int = 64,
    ) -> Predicted:
        """Predictions of all ``wanted`` rows (R,) bool that the windows predict, rows ascending."""
        generator = torch.Generator(inputs.rows.item.device).manual_seed(seed)
        parts = []
        for some in in_batches(windows, batch_size):
            x, row = self._window_features(inputs, roles, some, wanted)
            _, one, two = self._pair(x, generator)
            response = self.predict(x)
            parts.append(
                Predicted(row, response, self.calibrated(response), self.divergence(one, two))
            )
        if not parts:
            none = torch.zeros(0, N_RESPONSES, device=self.mean.device)
            return Predicted(none[:, 0].long(), none, none, none)
        order = torch.cat([p.row for p in parts]).argsort()
        return Predicted(*(torch.cat([getattr(p, name) for p in parts])[order] for name in ("row", "response", "calibrated", "kl")))  # fmt: skip

    def calibrate(self, predicted: Predicted, response: Tensor) -> tuple[str, ...]:
        """Fit the calibration on predictions of validation rows (L9), given the responses of all rows (R, 7).

        Returns:
            Responses that no such row knows.
        """
        return self.calibration.fit(predicted.response, self.winsorised(response[predicted.row]))

    def draw(self, predicted: Tensor, uniforms: Tensor) -> Tensor:
        """:meth:`ResponseCalibration.draw`; NaN for a response that training never saw."""
        return torch.where(self.known, self.calibration.draw(predicted, uniforms), torch.nan)


def shown(batch: FeedBatch, slots: Tensor, response: Tensor) -> FeedBatch:
    """The same decision after an item was shown: history and feedback one row longer, oldest row dropped (next state ``gru``).

    Args:
        batch: B states.
        slots: (B,) what was shown.
        response: (B, 7) how it was answered, the responses' units.
    """
    item = batch.candidates.gather(1, slots[:, None])
    return replace(
        batch,
        history=torch.cat([batch.history[:, 1:], item], 1),
        feedback=torch.cat([batch.feedback[:, 1:], response[:, None]], 1),
    )
