"""What a pupil learns from its teacher, and how its rows and figures are made."""

import polars as pl
import pytest
import torch
from support.model_inputs import (
    HOUR,
    N_ITEMS,
    TINY,
    events_frame,
    modal_frame,
    users_frame,
)
from torch.distributions import Bernoulli, kl_divergence

from reelrank.models import registry
from reelrank.models.inputs import InputSpec, ModelInputs
from reelrank.models.policy import RankingModel
from reelrank.pipelines.compress import rows
from reelrank.pipelines.compress.distillation import (
    AGREEMENT,
    Lesson,
    bernoulli_kl,
    distil,
    recover,
    relative_error,
)
from reelrank.pipelines.compress.latency import measure, sizes, timed
from reelrank.pipelines.compress.measuring import Server, untrained_servers
from reelrank.pipelines.compress.options import (
    CACHED,
    WHOLE,
    DistillationOptions,
    LatencyOptions,
    StudentOptions,
    UntrainedOptions,
)
from reelrank.pipelines.compress.pruning import without_weights
from reelrank.pipelines.compress.report import front
from reelrank.pipelines.mt_dqn import create_pipeline as _declares_homes  # noqa: F401
from reelrank.tables import Items
from reelrank.training.artifact import ModelCheckpoint
from reelrank.training.options import TrainOptions
from reelrank.training.ranking import restore

STUDENT = StudentOptions(
    fusion={"d_model": 8, "layers": 1, "heads": 2, "d_f": 6},
    tgnn={"d_h": 4, "layers": 1, "fanout": (3,), "time_dim": 4},
    head={"hidden": (8, 4), "value_hidden": 4},
)
TRAINING = TrainOptions(epochs=6, batch_size=16, lr=0.01, patience=6, device="cpu")
OPTIONS = DistillationOptions(candidates=24, validation_rows=8)


@pytest.fixture(scope="module")
def tables():
    empty = {c: pl.Series(c, [None] * N_ITEMS, dtype=t) for c, t in Items.polars_schema().items()}
    items = pl.DataFrame(empty | {"item_id": range(N_ITEMS)}, strict=False)
    return events_frame(), modal_frame(), items, users_frame()


@pytest.fixture(scope="module")
def teacher(tables):
    inputs = ModelInputs.from_tables(*tables)
    torch.manual_seed(1)
    spec = InputSpec.of(inputs)
    model = registry.build("mt_dqn", TINY["mt_dqn"], spec, RankingModel)
    with (
        torch.no_grad()
    ):  # untrained, a teacher this small says nearly the same of every user and video
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(2.0)
    config = {
        "name": "mt_dqn",
        "options": TINY["mt_dqn"].model_dump(mode="json"),
        "spec": spec.model_dump(mode="json"),
    }
    return ModelCheckpoint(config, model.state_dict(), model.state_dict())


@pytest.fixture(scope="module")
def lesson(teacher, tables):
    return Lesson.of(teacher, tables, OPTIONS, TRAINING)


def test_kl_of_behaviours_is_torchs_and_zero_for_the_same():
    torch.manual_seed(0)
    told, said = torch.randn(2, 5, 4, 3)
    expected = kl_divergence(Bernoulli(logits=told), Bernoulli(logits=said)).sum(-1).mean()
    torch.testing.assert_close(bernoulli_kl(told, said), expected)
    assert bernoulli_kl(told, told, 3.0) == pytest.approx(0, abs=1e-7)


def test_a_constant_explains_nothing_and_the_teacher_everything():
    told = torch.tensor([[1.0, 3.0], [5.0, 7.0]])
    assert relative_error(told, told) == 0
    assert relative_error(told.mean().expand_as(told), told) == pytest.approx(1.0)


def test_a_copy_of_the_teacher_has_nothing_to_learn(lesson, teacher):
    model = restore(teacher, lesson.inputs)
    with torch.no_grad():
        losses = lesson.compare(model, torch.arange(20, 30), torch.arange(N_ITEMS))
    assert all(float(loss) == pytest.approx(0, abs=1e-6) for loss in losses.values())


def test_candidates_are_available_at_the_moment(lesson, tables):
    first = tables[0].group_by("item_id").agg(pl.col("ts_ms").min())
    since = dict(first.iter_rows())
    moment = lesson.availability[len(lesson.availability) // 2]
    generator = torch.Generator().manual_seed(0)
    drawn = lesson.candidates(moment, generator)
    assert all(since[int(item)] <= int(moment) for item in drawn)
    with pytest.raises(ValueError, match="no video is available"):
        lesson.candidates(lesson.availability[0] - HOUR, generator)


def test_the_student_comes_to_agree_with_its_teacher(lesson, teacher, tmp_path):
    made, history = distil(teacher, lesson, STUDENT, TRAINING, tmp_path)
    agreement = history[f"val_{AGREEMENT}"]
    assert agreement.max() > agreement[0] and agreement.max() > 0
    model = restore(made, lesson.inputs)
    assert len(model.fusion.layers) == 1 and model.config.tgnn.fanout == (3,)
    assert model.link is None
    assert not any(p.requires_grad for p in lesson.teacher.parameters())


def test_a_pruned_network_recovers_with_its_zeros(lesson, teacher, tmp_path):
    short = TRAINING.model_copy(update={"epochs": 2})
    cut = without_weights(teacher, 0.7)
    made, history = recover("magnitude_70", cut, teacher, lesson, short, tmp_path, keep_zeros=True)
    assert history["train_loss"][-1] < history["train_loss"][0]
    for name, weight in cut.best.items():
        if name.endswith("weight") and weight.dim() == 2 and int((weight == 0).sum()):
            assert (made.best[name][weight == 0] == 0).all(), name


def test_the_students_options_are_the_teachers_but_for_what_is_named(teacher):
    own, options = teacher.config["options"], STUDENT.of(teacher.config["options"])
    assert options["fusion"]["d_model"] == 8 and options["fusion"]["layers"] == 1
    assert options["fusion"]["gate"] == own["fusion"]["gate"]
    assert options["tgnn"]["message_dim"] == own["tgnn"]["message_dim"]


def test_calls_are_counted_and_stop_when_their_seconds_are_up():
    seen = []
    options = LatencyOptions(requests=7, seconds=5.0, warm_up=2)
    assert len(timed({"a": seen.append}, 3, options)["a"]) == 7
    assert seen == [0, 1, 0, 1, 2, 0, 1, 2, 0]
    slow = timed({"a": lambda _: sum(range(200_000))}, 1, options.model_copy(update={"seconds": 1e-4}))  # fmt: skip
    assert len(slow["a"]) == 1


@pytest.fixture(scope="module")
def timings(lesson, teacher):
    options = LatencyOptions(requests=3, seconds=1.0, warm_up=0, batches=(1, 4), threads=(1,))
    small = UntrainedOptions(
        fusion={"d_model": 24, "layers": 3, "heads": 12}, tgnn={"d_h": 4, "layers": 1, "fanout": [2]},
        head={"hidden": [8, 4]}, student=STUDENT,
    )  # fmt: skip
    servers = {"mt_dqn": Server(restore(teacher, lesson.inputs), lesson.inputs)}
    servers |= untrained_servers(small, teacher, lesson.inputs)
    events = torch.arange(100, 120)
    sized = pl.concat([sizes(name, server, events) for name, server in servers.items()])
    return measure(servers, events, options), sized


def test_every_network_is_timed_whole_cached_and_by_module(timings):
    latencies, _ = timings
    assert latencies.height == 3 * 2 * 5 and (latencies["n"] == 3).all()
    assert (latencies["p50_ms"] <= latencies["p95_ms"]).all()
    assert {WHOLE, CACHED, "fusion", "graph", "heads"} == set(latencies["module"])


def test_sizes_are_the_modules_own_and_add_up(timings, teacher):
    _, sized = timings
    own = sized.filter(variant="mt_dqn")
    parts = own.filter(pl.col("module") != WHOLE)
    assert parts["parameters"].sum() == own.filter(module=WHOLE)["parameters"].item()
    hidden = [weight for name, weight in teacher.best.items() if name.startswith("heads.") and name.endswith("weight") and weight.dim() == 2]  # fmt: skip
    assert own.filter(module="heads")["mflops"].item() == pytest.approx(sum(2 * w.numel() for w in hidden) / 1e6)  # fmt: skip
    # attention's products are counted, not only its linear maps: 2 layers, 2 heads of 4, 9 tokens
    t, d, layers = 9, 8, 2
    linear = layers * t * 12 * d * d * 2 + 2 * (3 * 5 + 2 * 4 + 4 * 6) * d + 2 * (3 * d * 3 + d * 6)
    assert own.filter(module="fusion")["mflops"].item() == pytest.approx((linear + layers * 4 * t * t * d) / 1e6)  # fmt: skip


def test_rows_compare_with_the_teacher_of_their_own_cell(timings):
    found = rows.all_rows(_quality(), *timings)
    trained, published = found["MT-05", rows.TRAINED], found["MT-05", rows.UNTRAINED]
    assert {r.variant for r in trained} == {"mt_dqn"}
    ratio = [r for r in published if r.metric == "latency_ratio"]
    assert {r.variant for r in ratio} == {rows.UNTRAINED_STUDENT}
    median = {r.variant: r.value for r in published if r.metric == "latency_p50_ms" and r.group == WHOLE and r.weighting == rows.weighting(4, 1)}  # fmt: skip
    expected = median[rows.UNTRAINED_TEACHER] / median[rows.UNTRAINED_STUDENT]
    (own,) = (r.value for r in ratio if r.group == WHOLE and r.weighting == rows.weighting(4, 1))
    assert own == pytest.approx(expected)
    assert all(not r.reliable for r in trained if r.metric == "latency_p99_ms")


def test_what_is_kept_turns_the_interval_of_the_difference_round():
    (kept,) = rows.retained_rows(_quality())
    assert (kept.variant, kept.metric) == ("student", "retained_ndcg@5")
    assert (kept.value, kept.ci_low, kept.ci_high) == pytest.approx((0.95, 0.9, 1.0))


def _quality():
    shared = {"group": "logged", "weighting": "binary", "n": 9, "reliable": True, "metric": "ndcg@5"}  # fmt: skip
    return pl.DataFrame(
        [
            {**shared, "variant": "mt_dqn", "value": 0.8, "ci_low": 0.7, "ci_high": 0.9, "paired_with": None},
            {**shared, "variant": "mt_dqn", "value": 0.04, "ci_low": 0.0, "ci_high": 0.08, "paired_with": "student"},
        ]
    )  # fmt: skip


def test_the_front_keeps_what_nothing_beats_in_both():
    points = pl.DataFrame({"ms": [1.0, 2.0, 2.0, 3.0, 4.0], "value": [0.5, 0.7, 0.6, 0.7, 0.9]})
    assert front(points).rows() == [(1.0, 0.5), (2.0, 0.7), (4.0, 0.9)]
