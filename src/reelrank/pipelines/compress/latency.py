"""How long a call takes, as a whole and by module, with the fusion done anew (a video seen for the first time) and with f cached.

A call scores B rows, each a user, a video and a moment. Source: METHODS §9 MT-05.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from reelrank.models.inputs import ModelInputs
from reelrank.models.policy import Outputs, RankingModel
from reelrank.pipelines.compress.compressed import fusion_of, memory_of, plain
from reelrank.pipelines.compress.export import ExportedParts, tensors_of
from reelrank.pipelines.compress.options import CACHED, MODULES, WHOLE, LatencyOptions

SCHEMA = {
    "variant": pl.String, "module": pl.String, "batch": pl.Int64, "threads": pl.Int64, "n": pl.Int64,
    "p50_ms": pl.Float64, "p95_ms": pl.Float64, "p99_ms": pl.Float64,
}  # fmt: skip
SIZE_SCHEMA = {
    "variant": pl.String, "module": pl.String, "parameters": pl.Int64, "zeros": pl.Int64,
    "megabytes": pl.Float64, "mflops": pl.Float64,
}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """B rows: users, items, UTC epoch ms, each (B,) int64."""

    users: Tensor
    items: Tensor
    ts: Tensor


class Server:
    """A network that answers calls, part by part.

    Args:
        model: in evaluation mode, refreshed, on the CPU.
        inputs: events, items, users.
        exported: graphs that take the place of fusion and heads.
    """

    def __init__(
        self, model: RankingModel, inputs: ModelInputs, exported: ExportedParts | None = None
    ) -> None:
        self.model, self.inputs, self.exported = model, inputs, exported

    def fusion(self, rows: Rows) -> Tensor:
        """Vectors f of the rows' videos, (B, d_f)."""
        tokens = self.inputs.items.select(rows.items)
        if self.exported is not None:
            return _tensor(self.exported.fusion(*tensors_of(tokens)))
        return _tensor(fusion_of(self.model)(tokens).f)

    def graph(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """User states (B, Du) and item states (B, 1, Dv), f read from the memory."""
        user = self.model.user_state(self.inputs, rows.users, rows.ts)
        return user, self.model.item_state(self.inputs, rows.items, rows.ts).unsqueeze(1)

    def heads(self, states: tuple[Tensor, Tensor]) -> Outputs:
        """Outputs (B, 1)."""
        if self.exported is None:
            return self.model.head(*states)
        return Outputs(*self.exported.heads(*states))

    def cached(self, rows: Rows) -> Outputs:
        """Outputs of rows whose videos are known."""
        return self.heads(self.graph(rows))

    def whole(self, rows: Rows) -> Outputs:
        """Outputs of rows whose videos were never seen: each is fused, and its f kept."""
        memory_of(self.model).index_copy_(0, rows.items, self.fusion(rows))
        return self.cached(rows)


def _tensor(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    if not isinstance(out, Tensor):
        raise TypeError("the fusion gives one tensor")
    return out


@torch.inference_mode()
def measure(servers: Mapping[str, Server], events: Tensor, options: LatencyOptions) -> pl.DataFrame:
    """Percentiles of every variant, batch and number of threads; of modules with the most threads only.

    The variants take turns inside a cell, so that a noisy minute hits all alike.

    Args:
        servers: variant to what answers.
        events: (n,) positions of events that calls are made of.
        options: sizes.

    Returns:
        Columns of ``SCHEMA``.
    """
    found = []
    inputs = next(iter(servers.values())).inputs
    for batch in options.batches:
        calls = _calls(inputs, events, batch, options)
        for threads in options.threads:
            with thread_count(threads):
                of_parts = MODULES if threads == max(options.threads) else ()
                for module in (WHOLE, CACHED, *of_parts):
                    functions = {v: _function(s, module, calls) for v, s in servers.items()}
                    taken = timed(functions, len(calls), options)
                    found += [
                        (variant, module, batch, threads, len(ms), *np.percentile(ms, (50, 95, 99)).tolist())
                        for variant, ms in taken.items()
                    ]  # fmt: skip
    return pl.DataFrame(found, SCHEMA, orient="row")


def timed(
    functions: Mapping[str, Callable[[int], object]], n_inputs: int, options: LatencyOptions
) -> dict[str, npt.NDArray[np.float64]]:
    """Milliseconds of each call of each function, in turns; a function that has used up its seconds makes no more.

    Args:
        functions: name to what is called with the number of an input.
        n_inputs: how many inputs there are.
        options: calls, seconds, warm-up.
    """
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        until = time.perf_counter() + options.seconds / 4
        for i in range(options.warm_up):
            if i and time.perf_counter() > until:
                break
            function(i % n_inputs)
    going = dict(functions)
    for call in range(options.requests):
        for name, function in list(going.items()):
            started = time.perf_counter()
            function(call % n_inputs)
            taken[name].append((time.perf_counter() - started) * 1e3)
            if sum(taken[name]) > options.seconds * 1e3:
                del going[name]
        if not going:
            break
    return {name: np.array(ms) for name, ms in taken.items()}


@torch.no_grad()
def sizes(variant: str, server: Server, events: Tensor) -> pl.DataFrame:
    """Parameters, how many are zero, megabytes as stored, and MFLOPs of one row, by module.

    A multiplication and an addition are two; integers count as floats do. Exported graphs have the sizes of what they were exported from.

    Returns:
        Columns of ``SIZE_SCHEMA``.
    """
    rows = _rows(server.inputs, events[:1])
    states = server.graph(rows)
    calls: dict[str, Callable[[], object]] = {
        "fusion": lambda: server.fusion(rows),
        "graph": lambda: server.graph(rows),
        "heads": lambda: server.heads(states),
    }
    found = []
    for module, call in calls.items():
        part = plain(server.model).get_submodule("tgnn" if module == "graph" else module)
        tensors = [*part.parameters(), *part.buffers()]
        with FlopCounterMode(display=False, custom_mapping=counted_on_cpu()) as counter:
            call()
        found.append(
            (
                variant, module, sum(t.numel() for t in tensors), sum(int((t == 0).sum()) for t in tensors),
                sum(t.numel() * t.element_size() for t in tensors) / 2**20, counter.get_total_flops() / 1e6,
            )
        )  # fmt: skip
    frame = pl.DataFrame(found, SIZE_SCHEMA, orient="row")
    whole = frame.group_by("variant").agg(pl.col(*list(SIZE_SCHEMA)[2:]).sum())
    return pl.concat(
        [frame, whole.select("variant", pl.lit(WHOLE).alias("module"), *list(SIZE_SCHEMA)[2:])]
    )


@torch.inference_mode()
def largest_difference(mine: Server, theirs: Server, events: Tensor) -> float:
    """Largest |difference| of scores over some rows, over the largest |score|."""
    rows = _rows(mine.inputs, events)
    a, b = (server.whole(rows).q for server in (mine, theirs))
    return float((a - b).abs().max() / b.abs().max().clamp_min(1e-6))


@contextmanager
def thread_count(threads: int) -> Iterator[None]:
    """Use so many threads inside an operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _function(server: Server, module: str, calls: list[Rows]) -> Callable[[int], object]:
    if module == "heads":
        states = [server.graph(rows) for rows in calls]
        return lambda i: server.heads(states[i])
    part: Callable[[Rows], object] = {
        WHOLE: server.whole, CACHED: server.cached, "fusion": server.fusion, "graph": server.graph,
    }[module]  # fmt: skip
    return lambda i: part(calls[i])


def _calls(inputs: ModelInputs, events: Tensor, batch: int, options: LatencyOptions) -> list[Rows]:
    generator = torch.Generator().manual_seed(options.seed)
    n = min(options.requests, 32)
    drawn = torch.randint(len(events), (n, batch), generator=generator)
    return [_rows(inputs, events[chosen]) for chosen in drawn]


def _rows(inputs: ModelInputs, events: Tensor) -> Rows:
    stream = inputs.stream
    return Rows(stream.user[events], stream.item[events], stream.ts_ms[events])


def counted_on_cpu() -> dict[Any, Any]:
    """Operations that torch's counter of multiplications and additions does not know on a CPU, for its ``custom_mapping``."""

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:  # noqa: ANN401
        b, h, t, d = query
        return 2 * int(b * h * t * key[2] * (d + value[3]))

    def attention_backward(_: Any, query: Any, key: Any, value: Any, *__: Any, **___: Any) -> int:  # noqa: ANN401
        # the scores again, then a product for each of the gradients of v, of the weights, of q and of k
        b, h, t, d = query
        return 2 * int(b * h * t * key[2] * (3 * d + 2 * value[3]))

    def int8(x: Any, *_: Any, out_shape: Any, **__: Any) -> int:  # noqa: ANN401
        return 2 * int(np.prod(x)) * int(out_shape[-1])

    return {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: attention,
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
        torch.ops.onednn.qlinear_pointwise: int8,
    }
