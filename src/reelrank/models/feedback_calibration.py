"""Calibration of simulated responses, and draws around them.

Source: METHODS §4.6, §9 MM-03 [D: isotonic; squared-loss heads are no probabilities, and rare ones fall below 0].
"""

from __future__ import annotations

import numpy as np
import torch
from sklearn.isotonic import isotonic_regression
from torch import Tensor, nn

from reelrank.models.feed import RESPONSES, WATCH_TIME

KNOTS = 32  # of a map, and bins of predicted watch time
QUANTILES = 64  # of the watch time in each bin
N_RESPONSES = len(RESPONSES)
PLAYED = (RESPONSES.index("click"), RESPONSES.index("long_view"), WATCH_TIME)
OTHERS = tuple(k for k in range(N_RESPONSES) if k not in PLAYED)
N_UNIFORMS = 1 + len(OTHERS)  # random numbers behind one response


class ResponseCalibration(nn.Module):
    """A monotone map per response, and the spread of watch times around their prediction: buffers, so stored with the weights.

    Rows are pooled into bins of equal mass by prediction, the bins made monotone (isotonic regression); a map is linear between
    the bins' means and flat beyond them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("fitted", torch.zeros(N_RESPONSES, dtype=torch.bool))
        self.register_buffer("x", torch.zeros(N_RESPONSES, KNOTS))
        self.register_buffer("y", torch.zeros(N_RESPONSES, KNOTS))
        self.register_buffer("watch_from", torch.full((KNOTS,), torch.inf))
        self.register_buffer("watch_quantiles", torch.zeros(KNOTS, QUANTILES))
        self.fitted: Tensor
        self.x: Tensor
        self.y: Tensor
        self.watch_from: Tensor
        self.watch_quantiles: Tensor

    def fit(self, predicted: Tensor, response: Tensor) -> tuple[str, ...]:
        """Fit on validation rows (L9).

        Args:
            predicted: (N, 7) not calibrated.
            response: (N, 7), NaN where it was not logged.

        Returns:
            Responses that no row here knows: they stay as they are predicted.
        """
        missing = []
        for k, name in enumerate(RESPONSES):
            rows = ~response[:, k].isnan()
            if bool(rows.any()):
                self._fit_one(k, predicted[rows, k].double(), response[rows, k].double())
            else:
                missing.append(name)
        return tuple(missing)

    def _fit_one(self, k: int, predicted: Tensor, response: Tensor) -> None:
        predicted, order = predicted.cpu().sort(stable=True)
        response = response.cpu()[order]
        bins = min(KNOTS, len(predicted))
        start = torch.arange(bins + 1) * len(predicted) // bins
        size = start.diff()
        x, y = (
            (torch.nn.functional.pad(v.cumsum(0), (1, 0))[start]).diff() / size
            for v in (predicted, response)
        )
        smooth = isotonic_regression(y.numpy(), sample_weight=size.numpy())
        knot = torch.arange(KNOTS).clamp(max=bins - 1)
        self.x[k] = x[knot].float()
        self.y[k] = torch.from_numpy(np.asarray(smooth))[knot].float()
        self.fitted[k] = True
        if k == WATCH_TIME:
            self.watch_from.fill_(torch.inf)
            self.watch_from[:bins] = predicted[start[:-1]].float()
            middle = (torch.arange(QUANTILES, dtype=torch.float64) + 0.5) / QUANTILES
            for b, i in enumerate(knot.tolist()):
                self.watch_quantiles[b] = response[start[i] : start[i + 1]].quantile(middle)

    def forward(self, predicted: Tensor) -> Tensor:
        """Predictions (…, 7) through the maps."""
        raw = predicted.reshape(-1, N_RESPONSES).T.contiguous()
        right = torch.searchsorted(self.x, raw).clamp(1, KNOTS - 1)
        x0, x1 = self.x.gather(1, right - 1), self.x.gather(1, right)
        y0, y1 = self.y.gather(1, right - 1), self.y.gather(1, right)
        share = torch.where(x1 > x0, (raw - x0) / (x1 - x0).clamp(min=1e-12), 1.0)
        out = torch.where(self.fitted[:, None], torch.lerp(y0, y1, share.clamp(0, 1)), raw)
        calibrated: Tensor = out.T.reshape(predicted.shape)
        return calibrated

    def draw(self, predicted: Tensor, uniforms: Tensor) -> Tensor:
        """Responses (…, 7) drawn around uncalibrated predictions (…, 7).

        One number decides click, long view and watch time together, as all three follow from how long a video played; like,
        follow, comment and hate have one each [D].

        Args:
            predicted: as the simulator's ``predict`` gives.
            uniforms: (…, 5) in [0, 1).
        """
        u = torch.empty_like(predicted)
        u[..., PLAYED] = uniforms[..., :1]
        u[..., OTHERS] = uniforms[..., 1:]
        drawn: Tensor = (u >= 1 - self(predicted)).to(predicted.dtype)
        seconds = predicted[..., WATCH_TIME].contiguous()
        place = (torch.searchsorted(self.watch_from, seconds, right=True) - 1).clamp(min=0)
        quantile = (uniforms[..., 0] * QUANTILES).long().clamp(max=QUANTILES - 1)
        drawn[..., WATCH_TIME] = self.watch_quantiles[place, quantile]
        return drawn
