"""RecBole 1.2.1 as a servant of ``benchmarks/sequential.py``: reads one JSON order a line, answers with one JSON line.

Runs in an environment of its own; see ``make_peer`` there. Training and evaluation are RecBole's own ``Trainer``, called by its parts, since
``run_recbole`` fails with this PyTorch.
"""

# ruff: noqa: ANN401 - RecBole has no types
import argparse
import json
import logging
import os
import resource
import sys
import time
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

warnings.filterwarnings("ignore")
ORDERS = os.fdopen(os.dup(1), "w")  # answers; whatever RecBole prints goes to stderr
os.dup2(2, 1)


class Limited:
    """A loader that goes on from pass to pass and stops after some batches, or when a time is up."""

    def __init__(self, loader: Any) -> None:
        self.loader, self.batches = loader, self.forever(loader)
        self.steps, self.until, self.positions = 0, float("inf"), 0

    @staticmethod
    def forever(loader: Any) -> Iterator[Any]:
        while True:
            yield from loader

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        self.positions, done = 0, 0
        while done < self.steps and time.perf_counter() < self.until:
            batch = next(self.batches)
            yield batch
            self.positions += len(batch)
            done += 1


class First:
    """The first batches of a loader, until some users were seen."""

    def __init__(self, loader: Any, users: int) -> None:
        self.loader, self.most, self.users = loader, users, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            self.users += len(batch[0])
            yield batch
            if self.users >= self.most:
                return


class Servant:
    def __init__(self, given: argparse.Namespace) -> None:
        from recbole.config import Config  # noqa: PLC0415 - after stdout was turned away
        from recbole.data import create_dataset, data_preparation  # noqa: PLC0415
        from recbole.utils import get_model, get_trainer, init_seed  # noqa: PLC0415

        options = {
            "data_path": str(given.data),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "USER_ID_FIELD": "user_id",
            "ITEM_ID_FIELD": "item_id",
            "TIME_FIELD": "timestamp",
            "MAX_ITEM_LIST_LENGTH": given.length,
            "train_batch_size": given.batch,
            "eval_batch_size": 4096,
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
            "train_neg_sample_args": None,
            "loss_type": "CE",
            "topk": [10],
            "metrics": ["NDCG"],
            "metric_decimal_place": 8,  # 4 by default
            "valid_metric": "NDCG@10",
            "seed": given.seed,
            "reproducibility": False,
            "use_gpu": False,
            "show_progress": False,
            "state": "ERROR",
            "worker": 0,
            "checkpoint_dir": str(given.data / "saved"),
            **json.loads(given.options),
        }
        started = time.perf_counter()
        self.config = Config(model=given.model, dataset=given.name, config_dict=options)
        logging.disable(logging.CRITICAL)
        init_seed(given.seed, reproducibility=False)
        data = create_dataset(self.config)
        self.train, self.valid, self.test = data_preparation(self.config, data)
        self.make = lambda: get_model(given.model)(self.config, self.train._dataset)
        self.trainer_of = get_trainer(self.config["MODEL_TYPE"], given.model)
        self.init_seed = init_seed
        self.begin(given.seed)
        self.prepared_s = time.perf_counter() - started

    def begin(self, seed: int, lr: float = 1e-3) -> dict[str, Any]:
        """Fresh weights and a fresh optimiser; RecBole's own rate is 1e-3."""
        self.config["learning_rate"] = lr
        self.init_seed(seed, reproducibility=False)
        self.model = self.make()
        self.trainer = self.trainer_of(self.config, self.model)
        self.loader = Limited(self.train)
        self.best: tuple[float, Any] = (-1.0, None)
        return {"positions_of_a_pass": len(self.train._dataset)}

    def learn(self, steps: int | None = None, seconds: float | None = None) -> dict[str, Any]:
        """Train for some batches, or for some time."""
        started = time.perf_counter()
        self.loader.steps = sys.maxsize if steps is None else steps
        self.loader.until = float("inf") if seconds is None else started + seconds
        loss = self.trainer._train_epoch(self.loader, 0)
        taken = time.perf_counter() - started
        return {"positions": self.loader.positions, "seconds": taken, "loss": loss}

    def evaluate(self, part: str, users: int) -> dict[str, Any]:
        """NDCG@10 of the first users by RecBole's own evaluation."""
        first = First(getattr(self, part), users)
        self.trainer.tot_item_num = self.train._dataset.item_num
        started, processor = time.perf_counter(), time.process_time()
        found = self._evaluated(first)
        return {
            "users": first.users,
            "seconds": time.perf_counter() - started,
            "processor_s": time.process_time() - processor,
            "ndcg@10": float(found["ndcg@10"]),
        }

    def _evaluated(self, loader: First) -> Any:
        import torch  # noqa: PLC0415

        collector, trainer = self.trainer.eval_collector, self.trainer
        self.model.eval()
        with torch.no_grad():
            for batch in loader:
                interaction, scores, users, items = trainer._full_sort_batch_eval(batch)
                collector.eval_batch_collect(scores, interaction, users, items)
        collector.model_collect(self.model)
        return trainer.evaluator.evaluate(collector.get_data_struct())

    def fit(self, seed: int, passes: int, patience: int) -> dict[str, Any]:
        """Train pass by pass, keep the weights that are best on valid, and judge them on test."""
        self.begin(seed)
        started, stale, done = time.perf_counter(), 0, 0
        n_batches = len(self.train)
        while done < passes and stale < patience:
            self.learn(steps=n_batches)
            done += 1
            value = self.evaluate("valid", sys.maxsize)["ndcg@10"]
            if value > self.best[0]:
                self.best, stale = (value, deepcopy(self.model.state_dict())), 0
            else:
                stale += 1
        taken = time.perf_counter() - started
        self.model.load_state_dict(self.best[1])
        test = self.evaluate("test", sys.maxsize)["ndcg@10"]
        return {"valid": self.best[0], "test": test, "passes": done, "seconds": taken}

    def about(self) -> dict[str, Any]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return {"prepared_s": self.prepared_s, "peak_rss_mb": round(peak), "items": self.train._dataset.item_num - 1}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--length", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--options", default="{}")
    given = parser.parse_args()
    sys.argv = sys.argv[:1]  # RecBole reads the command line, too
    import torch  # noqa: PLC0415

    torch.set_num_threads(given.threads)
    servant = Servant(given)
    for line in sys.stdin:
        order = json.loads(line)
        answer = getattr(servant, order.pop("do"))(**order)
        print(json.dumps(answer), file=ORDERS, flush=True)


if __name__ == "__main__":
    main()
