"""A small training run with dropout, negatives and a target network: everything that a resume must restore."""

import os
import signal
import sys
from copy import deepcopy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from reelrank.training.device import seed_everything
from reelrank.training.loop import fit
from reelrank.training.options import TrainOptions

OPTIONS = TrainOptions(
    epochs=3, batch_size=8, lr=0.01, checkpoint_every_steps=3, patience=3, device="cpu"
)
N_ROWS = 60  # 8 steps an epoch, the last batch is short
N_STEPS = 24


class Target(nn.Module):
    """A soft copy of the model."""

    def __init__(self, model):
        super().__init__()
        self.copy = deepcopy(model).requires_grad_(False)

    def after_step(self, model, step):
        for mine, theirs in zip(self.copy.parameters(), model.parameters(), strict=True):
            mine.lerp_(theirs.detach(), 0.1)


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.3), nn.Linear(16, 1))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        return self.net(x).squeeze(-1)


def toy_fit(work_dir, stop=lambda step: None, options=OPTIONS, identity=None, check=lambda: None):
    """Train; ``stop(step)`` is called before each step and may end the run by any means, ``check()`` at each validation."""
    data = torch.Generator().manual_seed(1)
    x = torch.randn(N_ROWS, 4, generator=data)
    y = x.sum(1) + 0.1 * torch.randn(N_ROWS, generator=data)
    seed_everything(options.seed)
    model = Toy()
    target = Target(model)
    steps = []

    def step_fn(model, rows, generator):
        # the number of the step, taken from the model's state, not from this process
        stop(int(model.seen) + 1)
        model.seen += 1
        steps.append(int(model.seen))
        noise = 0.1 * torch.randn(len(rows), generator=generator)
        fitted = nn.functional.mse_loss(model(x[rows]), y[rows] + noise)
        pulled = nn.functional.mse_loss(model(x[rows]), target.copy(x[rows]))
        return {"loss": fitted + 0.1 * pulled, "fitted": fitted}

    def validate_fn(model):
        check()
        return {"score": -float(nn.functional.mse_loss(model(x), y))}

    result = fit(
        model,
        torch.arange(N_ROWS),
        step_fn=step_fn,
        validate_fn=validate_fn,
        options=options,
        work_dir=work_dir,
        identity=identity or {"data": "a"},
        companion=target,
    )
    return result, steps


if __name__ == "__main__":  # argv: work folder, output file, step before which to die
    folder, output, deadly = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])

    def die(step):
        if step == deadly:
            os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    fitted, _ = toy_fit(folder, die)
    save_file(fitted.last, output)
