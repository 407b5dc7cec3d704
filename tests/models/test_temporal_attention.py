"""One pass over the pairs that are there says what torch's own operations say, and so do its gradients."""

import pytest
import torch

from reelrank.models.temporal_attention import Neighbourhood, attend, composed


def example(counts, heads=2, width=3, times=5, unique=6, k=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    r = len(counts)
    mask = torch.arange(k) < torch.tensor(counts).unsqueeze(1)
    near = Neighbourhood(torch.randint(0, unique, (r, k), generator=g), mask)
    shapes = ((r, heads, width), (r, heads, times), (unique, heads * width), (unique, heads * width), (int(mask.sum()), times))  # fmt: skip
    return [torch.randn(shape, generator=g).requires_grad_() for shape in shapes], near


@pytest.mark.parametrize(
    ("counts", "sizes"),
    [
        ([4, 0, 1, 3], {}),
        ([0, 0], {}),
        ([4], {}),
        ([10, 7, 0, 1] * 20, {"width": 32, "times": 64, "unique": 50, "k": 10}),
        ([3, 9] * 20, {"heads": 3, "width": 17, "times": 13, "unique": 30, "k": 9}),
    ],
    ids=["mixed", "none", "full", "wide", "odd"],
)
def test_the_kernel_equals_the_formula_with_its_gradients(counts, sizes):
    tensors, near = example(counts, **sizes)
    weights = [torch.randn(out.shape) for out in composed(*tensors, near)]
    answers = []
    for function in (attend, composed):
        out = function(*tensors, near)
        total = sum((o * w).sum() for o, w in zip(out, weights, strict=True))
        answers.append((*out, *torch.autograd.grad(total, tensors)))
    for found, expected in zip(*answers, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    alone = [row for row, n in enumerate(counts) if n == 0]
    assert not answers[0][0][alone].any() and not answers[0][1][alone].any()


def test_one_neighbour_is_its_value():
    tensors, near = example([1])
    value, time = attend(*tensors, near)
    torch.testing.assert_close(value.flatten(), tensors[3][near.index_RK[0, 0]])
    torch.testing.assert_close(time, tensors[4].expand(2, -1).unsqueeze(0))


def test_large_logits_stay_finite():
    tensors, near = example([4, 2])
    large = [t.detach() * 1e3 for t in tensors[:3]] + [t.detach() for t in tensors[3:]]
    assert all(out.isfinite().all() for out in attend(*large, near))


def test_other_types_take_the_formula():
    tensors, near = example([3, 1])
    double = [t.detach().double() for t in tensors]
    for found, expected in zip(attend(*double, near), composed(*tensors, near), strict=True):
        torch.testing.assert_close(found, expected.double(), atol=1e-5, rtol=1e-5)
