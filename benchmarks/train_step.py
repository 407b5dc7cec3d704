"""One training step of MT-DQN at the published sizes (``conf/paper``): tokens a second, and the share of the device's matrix rate.

    python benchmarks/train_step.py [--device auto] [--precision bfloat16] [--tokens 16 16 64] [--items 4000] [--steps 5] [--rounds 3]

A step: losses, gradients and Adam on 200 events with 20 negatives, every distinct video among events and negatives that the step learns from fused
anew with gradient; the target network's item vectors are read from its memory, as in training. Tokens are those of the videos fused. The matrix rate
is measured on the same device in the same minute, a large product of the same precision; ``share`` is the step's own multiplications and additions a second
(torch's count, attention and the graph's products among them) over it. Data are random: a step's time does not depend on them.
"""

import argparse
import json
import os
import resource
import time
from collections.abc import Callable

os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # read by torch when it starts

import numpy as np
import torch
from latency import generated
from torch.utils.flop_counter import FlopCounterMode

from reelrank.models.inputs import InputSpec
from reelrank.models.negatives import NegativeSampler
from reelrank.pipelines.compress.latency import counted_on_cpu
from reelrank.pipelines.mt_dqn.learning import LearningContext, TargetNetwork, dqn_step
from reelrank.pipelines.mt_dqn.model import MTDQN
from reelrank.pipelines.mt_dqn.options import LearningOptions, MTDQNOptions
from reelrank.training.device import pick_device, products_in, seed_everything

PRODUCT = 4096  # rows and columns of the matrices whose product tells the device's rate
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def seconds(function: Callable[[], object], device: torch.device, times: int) -> float:
    """Of one call, the mean over ``times``, whatever was begun before ended."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    for _ in range(times):
        function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - started) / times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=DTYPES, default="bfloat16")
    parser.add_argument(
        "--tokens", type=int, nargs=3, default=[16, 16, 64], help="visual audio text"
    )
    parser.add_argument("--items", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument("--steps", type=int, default=5, help="of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = pick_device(given.device)
    seed_everything(0)
    inputs = generated(given.items, tuple(given.tokens)).to(device)
    model = MTDQN(MTDQNOptions(link_head=True), InputSpec.of(inputs)).to(device)
    model.refreshed.fill_(
        True
    )  # vectors of random weights have no meaning: none are made before the first step
    learning = LearningOptions(negatives=20, link_weight=0.1, target_update="hard", target_every=1000)  # fmt: skip
    stream = inputs.stream
    sampler = NegativeSampler.fit(np.zeros(given.items, np.int64), np.ones(given.items, np.int64), device)  # fmt: skip
    context = LearningContext(TargetNetwork(model, learning, inputs), inputs, sampler, learning)
    optimiser = torch.optim.Adam(model.parameters(), 1e-4, fused=True)
    rows = torch.nonzero(stream.trained_rows()).squeeze(1)
    rows = rows[len(rows) // 2 :][: given.batch]
    generator = torch.Generator(device).manual_seed(0)
    fused: list[int] = []
    model.fusion.register_forward_hook(lambda _, arguments, __: fused.append(len(arguments[0].modalities[0].x)))  # fmt: skip
    model.train()

    def step() -> None:
        with products_in(given.precision, device):
            losses = dqn_step(model, rows, generator, context)
        optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        optimiser.step()

    with FlopCounterMode(display=False, custom_mapping=counted_on_cpu()) as counter:
        step()
    operations = counter.get_total_flops()
    matrix = torch.randn(PRODUCT, PRODUCT, device=device, dtype=DTYPES[given.precision])
    seconds(lambda: matrix @ matrix, device, 2)
    found = []
    for _ in range(given.rounds):
        fused.clear()
        taken = seconds(step, device, given.steps)
        rate = 2 * PRODUCT**3 / seconds(lambda: matrix @ matrix, device, 3 * given.steps)
        tokens = sum(fused) / given.steps * sum(given.tokens)
        found.append((tokens / taken, operations / taken / rate, taken, rate))
    tokens_s, share, taken, rate = np.median(found, axis=0)
    print(
        json.dumps(
            {
                "benchmark": "train_step", "device": device.type, "precision": given.precision, "threads": given.threads,
                "batch": given.batch, "videos": fused[-1], "tokens_a_video": sum(given.tokens),
                "parameters": sum(p.numel() for p in model.parameters()),
                "seconds": round(float(taken), 4), "tokens_s": round(float(tokens_s)),
                "tflop_a_step": round(operations / 1e12, 3), "matrix_tflops": round(float(rate) / 1e12, 3),
                "share_of_matrix_rate": [round(float(x), 3) for x in (share, *np.quantile([f[1] for f in found], (0, 1)))],
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            }
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
