"""MM-13: what it costs to score one request's candidates: latency, weights, and memory while it is done.

Timed is one request at a time from its tensors to the scores on the CPU, as an app asks; what reads a user's history before that is not.
Source: METHODS §9 MM-13 [S: 400 candidates].
"""

from __future__ import annotations

import shutil
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from reelrank.evaluation.results import ResultRow
from reelrank.models.feed import FeedBatch, FeedInputs, scores_of
from reelrank.models.feed_data import batch, candidate_codes
from reelrank.pipelines.mmrf.run_options import Program, ServingOptions
from reelrank.pipelines.mmrf.scoring import TEST

Score = Callable[[FeedBatch], Tensor]
QUANTILES = {"latency_p50_ms": 0.5, "latency_p95_ms": 0.95, "latency_p99_ms": 0.99}
ENOUGH = 100  # requests below which a p99 is the largest
MB = 1e6
COMPILER = "g++"


class Scorer(nn.Module):
    """A policy as a function of tensors, in the order of :class:`FeedBatch`: what can be exported."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, *tensors: Tensor) -> Tensor:
        """Scores (B, C)."""
        return scores_of(self.policy, FeedBatch(*tensors))


def programs(
    policy: nn.Module, request: FeedBatch, wanted: Sequence[Program]
) -> dict[Program, Score]:
    """Ways to run a policy: ``eager``; ``exported``, a torch.export'ed program; ``compiled``, the same through AOTInductor.

    Args:
        policy: in evaluation mode, on the request's device.
        request: whose shapes the programs are made for.
        wanted: which.

    Raises:
        RuntimeError: ``compiled`` without a C++ compiler.
    """
    scorer = Scorer(policy)
    found: dict[Program, Score] = {}
    if "eager" in wanted:
        found["eager"] = _of_tensors(scorer)
    if {"exported", "compiled"} & set(wanted):
        with torch.no_grad(), warnings.catch_warnings():
            # nn.GRU lists its weights twice, which the exporter takes for a state
            warnings.filterwarnings("ignore", message="The tensor attributes", category=UserWarning)
            made = torch.export.export(scorer, tensors_of(request))
        if "exported" in wanted:
            found["exported"] = _of_tensors(made.module())
        if "compiled" in wanted:
            found["compiled"] = _of_tensors(_compiled(made))
    return found


def requests_of(
    inputs: FeedInputs, options: ServingOptions, history: int, seed: int
) -> list[FeedBatch]:
    """Test decisions as they come, one by one, with as many candidates as asked for, drawn among all items.

    Raises:
        ValueError: there is no test decision.
    """
    index = torch.nonzero(inputs.decisions.split == TEST).squeeze(1)
    if not len(index):
        raise ValueError("the test split holds no decision: a longer log is needed")
    n_items, rng = len(inputs.items.codes), np.random.default_rng(seed)
    chosen = torch.from_numpy(rng.choice(len(index), options.requests)).to(index.device)
    found = []
    for place in index[chosen]:
        drawn = rng.choice(n_items, (1, options.candidates), replace=n_items < options.candidates)
        items = torch.from_numpy(drawn).to(index.device)
        codes = candidate_codes(inputs.items, items)
        state = batch(inputs, place.view(1), history)
        found.append(replace(state, candidates=items, item_codes=codes))
    return found


def serving_rows(
    name: str,
    policy: nn.Module,
    requests: Sequence[FeedBatch],
    wanted: Sequence[Program],
    options: ServingOptions,
) -> list[ResultRow]:
    """Latency by program, ``export_error`` (largest distance from the eager scores), ``weights_mb`` and ``activations_mb`` (eager).

    A p99 of fewer than a hundred requests is not reliable.
    """
    size = sum(p.numel() * p.element_size() for p in policy.parameters())
    rows = [
        ResultRow(name, "weights_mb", size / MB, 1),
        ResultRow(name, "activations_mb", peak_bytes(policy, requests[0]) / MB, 1),
    ]
    with threads(options.threads), torch.no_grad():
        made = programs(policy, requests[0], wanted)
        for program, score in made.items():
            ms = timed(score, requests, options.warm_up)
            rows += [
                ResultRow(name, metric, float(np.quantile(ms, q)), len(ms), reliable=len(ms) >= ENOUGH, weighting=program)
                for metric, q in QUANTILES.items()
            ]  # fmt: skip
            if program != "eager":
                error = max(
                    float((score(r) - scores_of(policy, r)).abs().max()) for r in requests[:5]
                )
                rows.append(ResultRow(name, "export_error", error, len(requests[:5]), weighting=program))  # fmt: skip
    return rows


def timed(
    score: Score,
    requests: Sequence[FeedBatch],
    warm_up: int,
    clock: Callable[[], float] = time.perf_counter,
) -> npt.NDArray[np.float64]:
    """Milliseconds of each request, one at a time, its scores on the CPU; the first ``warm_up`` are scored before, untimed."""
    for request in requests[:warm_up]:
        score(request).cpu()
    found = []
    for request in requests:
        started = clock()
        score(request).cpu()
        found.append(1000 * (clock() - started))
    return np.array(found)


@torch.no_grad()
def peak_bytes(policy: nn.Module, request: FeedBatch) -> int:
    """Most bytes that live at once beside weights and request while it is scored eagerly."""
    known = [*policy.parameters(), *policy.buffers(), *tensors_of(request)]
    with _PeakBytes(known) as counted:
        scores_of(policy, request)
    return int(counted.peak)


def tensors_of(request: FeedBatch) -> tuple[Tensor, ...]:
    """Its tensors, in order."""
    return tuple(getattr(request, field.name) for field in fields(request))


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Torch on ``n`` threads, and back."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _PeakBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts storages from their first tensor to their last."""

    def __init__(self, known: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._held = {t.untyped_storage().data_ptr() for t in known}
        self._now = self.peak = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self._held or not size:
            return
        self._held.add(place)
        self._now += size
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._free, place, size)

    def _free(self, place: int, size: int) -> None:
        self._held.discard(place)
        self._now -= size


def _of_tensors(run: Callable[..., Tensor]) -> Score:
    return lambda request: run(*tensors_of(request))


def _compiled(made: torch.export.ExportedProgram) -> Callable[..., Tensor]:
    if shutil.which(COMPILER) is None:
        raise RuntimeError(f"program compiled needs the C++ compiler {COMPILER}: install it, or leave compiled out of serving.programs")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        package = torch._inductor.aoti_compile_and_package(made, package_path=str(Path(folder) / "policy.pt2"))  # fmt: skip
        loaded: Callable[..., Tensor] = torch._inductor.aoti_load_package(package)
    return loaded
