"""Does fusing modalities by attention help where they contradict each other, and only there? ``make claims``.

Items with three modalities on the worlds of ``fusion_worlds.py``. The networks are MT-DQN's own, alone: fusion or Concat-Modal's concatenation, and a
linear map to the logit of a like. Judged on new items: NDCG@5 of lists of twenty by their true chance of a like. Beside it the gate's weight of a
modality as it is drowned in noise, and what the confidence mechanism takes off the error when modalities are corrupted. World and first weights
change with the seed; intervals are Student's over the seeds' paired differences. Rows are stored like any results (experiment ``claims``); a claim that
fails is shown as such, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process a core

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from fusion_worlds import AUDIO, DIMS, LENGTHS, WORLDS, Items, drawn, noised
from over_seeds import ABOVE, BELOW, Claim, Judged, Page, judge, publish, same

from reelrank.evaluation.ranking import ndcg
from reelrank.models.corruption import corrupted
from reelrank.models.fusion import ModalFusion
from reelrank.models.fusion_layouts import fusion_network
from reelrank.models.item_tokens import ItemTokens
from reelrank.models.options import ConfidenceOptions, CorruptionOptions, FusionOptions
from reelrank.options import digest
from reelrank.pipelines.mt_dqn.baselines import Concatenation

log = logging.getLogger("reelrank.claims")
ROOT = Path(__file__).parents[1]
MARGIN = 0.02  # NDCG@5 below which a difference counts as none
K, LISTED = 5, 20
N_TRAIN, N_TEST = 2_000, 2_000
STEPS, BATCH, LR = 600, 128, 2e-3
D_F = 32
FUSION = FusionOptions(d_model=32, layers=2, heads=4, d_f=D_F, dropout=0.1)
CORRUPTION = CorruptionOptions()
SNR_DB = (20.0, 10.0, 5.0, 0.0, -5.0)
CONFIDENCE_WEIGHT = 0.1  # METHODS §3.9


class Cell(NamedTuple):
    """What is trained on a world; ``fusion`` None: the concatenation."""

    world: str
    name: str
    fusion: FusionOptions | None
    corruption: CorruptionOptions | None = None


_MULT = FUSION.model_copy(update={"layout": "mult"})
_CONFIDENT = FUSION.model_copy(update={"confidence": ConfidenceOptions()})
CELLS = (
    *(Cell(world, "fusion", FUSION) for world in WORLDS),
    *(Cell(world, "concatenation", None) for world in ("agree", "conflict")),
    *(Cell(world, "fusion, mult", _MULT) for world in ("agree", "conflict")),
    Cell("agree", "fusion, corrupted in training", FUSION, CORRUPTION),
    Cell("agree", "fusion with confidence", _CONFIDENT, CORRUPTION),
)  # fmt: skip


class Liked(nn.Module):
    """Logit of a like from an item's modalities."""

    def __init__(self, options: FusionOptions | None) -> None:
        super().__init__()
        self.f = Concatenation(DIMS, D_F, FUSION.dropout) if options is None else fusion_network(options, LENGTHS, DIMS)  # fmt: skip
        self.out = nn.Linear(D_F, 1)

    def forward(self, tokens: ItemTokens) -> Tensor:
        """(M,) of M items."""
        f = self.f(tokens)
        logit: Tensor = self.out(f.f if isinstance(self.f, ModalFusion) else f).squeeze(1)
        return logit


def fitted(cell: Cell, items: Items, seed: int) -> Liked:
    """A model that has met random items, each time with another user's answer."""
    torch.manual_seed(seed)
    model = Liked(cell.fusion)
    optimiser = torch.optim.Adam(model.parameters(), LR)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(items.chance), (BATCH,))
        tokens = items.tokens.select(rows)
        if cell.corruption is not None:
            tokens, hit = corrupted(tokens, cell.corruption)
        loss = F.binary_cross_entropy_with_logits(model(tokens), torch.bernoulli(items.chance[rows]))  # fmt: skip
        if cell.corruption is not None and isinstance(model.f, ModalFusion) and model.f.confidence is not None:  # fmt: skip
            loss = loss + CONFIDENCE_WEIGHT * model.f.confidence_loss(tokens, hit)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
    return model.eval()


@torch.no_grad()
def measure(job: tuple[Cell, int]) -> dict[str, float]:
    """What a cell's model shows on new items.

    Returns:
        ``ndcg``; ``gate_low`` and ``gate_high``: the audio's gate at the worst and at the best ratio of signal to noise; ``mse``: of the chance of
        a like, over items whose modalities are noised, one at a time at each ratio.
    """
    cell, seed = job
    train, test = (drawn(cell.world, n, seed, part) for part, n in enumerate((N_TRAIN, N_TEST)))
    with torch.enable_grad():
        model = fitted(cell, train, seed)
    score = model(test.tokens).double().numpy()
    lists = np.repeat(np.arange(N_TEST // LISTED), LISTED)
    found = {"ndcg": float(ndcg(score, test.chance.numpy(), lists, K)[1].mean())}
    generator = torch.Generator().manual_seed(seed)
    if isinstance(model.f, ModalFusion):
        for name, snr in (("gate_high", max(SNR_DB)), ("gate_low", min(SNR_DB))):
            gate = model.f(noised(test.tokens, AUDIO, snr, generator)).gate
            found[name] = float(gate[:, AUDIO].mean())
    errors = [
        (model(noised(test.tokens, m, snr, generator)).sigmoid() - test.chance).square().mean()
        for m in range(len(DIMS))
        for snr in SNR_DB
    ]
    return found | {"mse": float(torch.stack(errors).mean())}


PAIRS = (
    (Claim("conflict", ("fusion", "concatenation"), "fusion above concatenation where modalities contradict each other", ABOVE), "ndcg"),
    (Claim("agree", ("fusion", "concatenation"), "no difference where they agree", same(MARGIN)), "ndcg"),
    (Claim("conflict", ("fusion, mult", "concatenation"), "a stack for each pair, where modalities contradict each other", None), "ndcg"),
    (Claim("agree", ("fusion, mult", "concatenation"), "a stack for each pair, where they agree", None), "ndcg"),
    (Claim("agree", ("fusion with confidence", "fusion, corrupted in training"), "confidence narrows the error under corruption", BELOW), "mse"),
    (Claim("agree", ("fusion, corrupted in training", "fusion"), "what meeting corruption in training takes off the error", None), "mse"),
)  # fmt: skip
GATE = Claim("noisy", ("gate of audio at −5 dB", "at 20 dB"), "the gate turns away from what is drowned in noise", BELOW)  # fmt: skip


def judged_of(found: Mapping[tuple[str, str], list[dict[str, float]]], n_seeds: int) -> list[Judged]:  # fmt: skip
    """Every claim."""
    n = n_seeds * N_TEST
    judged = []
    for claim, metric in PAIRS:
        own, other = ([m[metric] for m in found[claim.world, name]] for name in claim.pair)
        judged.append(judge(claim, own, other, metric=f"true_ndcg@{K}" if metric == "ndcg" else "chance_mse", n=n))  # fmt: skip
    gates = found[GATE.world, "fusion"]
    low, high = ([m[name] for m in gates] for name in ("gate_low", "gate_high"))
    return [*judged, judge(GATE, low, high, metric="gate_weight", n=n, group="audio")]


def main() -> int:
    """Judge every claim, store rows and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=ROOT / "data")
    given = parser.parse_args()
    if len(given.seeds) < 2:
        parser.error("an interval needs at least two seeds")
    jobs = [(cell, seed) for cell in CELLS for seed in given.seeds]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    with ProcessPoolExecutor(given.workers, get_context("spawn")) as pool:
        for (cell, seed), measured in zip(jobs, pool.map(measure, jobs), strict=True):
            found.setdefault((cell.world, cell.name), []).append(measured)
            log.info("%s %s seed %d: %s", cell.world, cell.name, seed, {k: round(v, 4) for k, v in measured.items()})  # fmt: skip
    page = Page(
        "claims_fusion", "Claims on fusion", " ".join(f"{name}: {reason}." for name, reason in WORLDS.items()),
        ("Fusion", "Differences over seeds of NDCG@5 by the true chance of a like, of its squared error, and of the gate's weight."),
        [], "python claims/fusion.py",
    )  # fmt: skip
    config_hash = digest(MARGIN, STEPS, BATCH, LR, FUSION.model_dump(mode="json"), CORRUPTION.model_dump(mode="json"))  # fmt: skip
    return publish(
        judged_of(found, len(given.seeds)), page, given.data,
        system="mt_dqn", seed=given.seeds[0], config_hash=config_hash, source="planted", split="items/test",
    )  # fmt: skip


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    log.setLevel(logging.INFO)
    sys.exit(main())
