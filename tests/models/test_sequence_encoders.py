import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from reelrank.models.sequence_encoders import (
    Caser,
    CaserOptions,
    GRU4RecOptions,
    NextItNetOptions,
    SASRecOptions,
    causal_convolution,
    gated_recurrence,
    last_valid,
    left_aligned,
    make_encoder,
)

OPTIONS = [NextItNetOptions(dim=8), SASRecOptions(dim=8), GRU4RecOptions(dim=8, hidden=12)]


def encoder_of(options):
    torch.manual_seed(0)
    return make_encoder(options).eval()


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o.name)
def test_a_change_at_a_place_never_changes_an_output_before_it(options):
    encoder = encoder_of(options)
    x = torch.randn(2, 30, 8)
    for place in (1, 7, 29):
        changed = x.clone()
        changed[:, place] += torch.randn(8)  # not a constant: LayerNorm would remove it
        before, after = encoder(x), encoder(changed)
        assert torch.equal(before[:, :place], after[:, :place])
        assert not torch.allclose(before[:, place], after[:, place])


def test_the_receptive_field_of_nextitnet_is_55():
    # 1 + 6·Σd for kernel 3 and dilations (1, 2) three times: METHODS §5.3
    encoder = encoder_of(NextItNetOptions(dim=8)).double()
    x = torch.randn(1, 70, 8, dtype=torch.float64, requires_grad=True)
    encoder(x)[0, -1].sum().backward()
    seen = x.grad[0].abs().sum(1).nonzero().squeeze(1)
    assert 70 - int(seen.min()) == 1 + 6 * sum((1, 2, 1, 2, 1, 2)) == 55


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: o.name)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=8), st.integers(0, 4), st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_padding_on_either_side_gives_the_same_output(options, items, left, right):
    encoder = encoder_of(options)
    table = torch.randn(10, 8, generator=torch.Generator().manual_seed(1))

    def answer(row):
        item, length = left_aligned(torch.tensor([row]), -1)
        x = table[item.clamp_min(0)] * (item >= 0).unsqueeze(-1)
        return last_valid(encoder(x), length)

    padded = [-1] * left + items + [-1] * right
    torch.testing.assert_close(answer(padded), answer(items), atol=1e-6, rtol=1e-5)


def test_a_history_without_events_gives_zeros():
    assert last_valid(torch.ones(2, 3, 4), torch.tensor([0, 2])).sum(1).tolist() == [0.0, 4.0]


def test_caser_reads_every_place_and_the_user():
    torch.manual_seed(0)
    caser = Caser(CaserOptions(dim=8, length=5), n_users=3).eval()
    x = torch.randn(2, 5, 8, requires_grad=True)
    caser(x, torch.tensor([0, 2])).sum().backward()
    assert (x.grad.abs().sum(2) > 0).all()
    assert (caser.users.weight.grad.abs().sum(1) > 0).tolist() == [True, False, True]


def test_more_places_than_sasrec_has_are_refused():
    with pytest.raises(ValueError, match="max_length"):
        encoder_of(SASRecOptions(dim=8, max_length=4))(torch.zeros(1, 5, 8))


def test_casers_horizontal_filters_are_convolutions():
    torch.manual_seed(0)
    caser = Caser(CaserOptions(dim=4, length=5, horizontal=3, vertical=2), 2).eval()
    x = torch.randn(6, 5, 4)
    users = torch.tensor([0, 1, 0, 1, 0, 1])
    best = [torch.relu(f(x.unsqueeze(1))).squeeze(3).amax(2) for f in caser.horizontal]
    over_time = caser.vertical(x.unsqueeze(1)).flatten(1)
    seen = torch.relu(caser.dense(torch.cat([over_time, *best], 1)))
    expected = torch.relu(caser.out(torch.cat([seen, caser.users(users)], 1)))
    torch.testing.assert_close(caser(x, users), expected)


@pytest.mark.parametrize(("step", "length"), [(1, 9), (2, 9), (4, 5), (8, 3)])
def test_causal_convolutions_are_torchs_and_so_are_their_gradients(step, length):
    torch.manual_seed(0)
    x = torch.randn(length, 2, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 12, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(5, dtype=torch.float64, requires_grad=True)
    padded = F.pad(x.permute(1, 2, 0), (2 * step, 0))
    kernel = weight.unflatten(1, (3, 4)).transpose(1, 2)
    expected = F.conv1d(padded, kernel, bias, dilation=step).permute(2, 0, 1)
    torch.testing.assert_close(causal_convolution(x, weight, bias, step), expected)
    assert torch.autograd.gradcheck(causal_convolution, (x, weight, bias, step))


@torch.no_grad()
def test_nextitnet_starts_near_its_input():
    """Six branches at full scale would be several times as large as the items' own vectors."""
    torch.manual_seed(0)
    x = torch.randn(5, 20, 64) / 8
    assert (make_encoder(NextItNetOptions())(x) - x).norm(dim=-1).max() < 6 * 0.1 * 8


LASTS = [
    *OPTIONS,
    GRU4RecOptions(dim=8, hidden=12, layers=2),
    NextItNetOptions(dim=8, kernel=2, dilations=(3, 2)),
    NextItNetOptions(dim=8, kernel=1, dilations=(1, 4)),
]


@pytest.mark.parametrize("options", LASTS, ids=[f"{o.name}{i}" for i, o in enumerate(LASTS)])
@pytest.mark.parametrize("length", [1, 2, 5, 14, 30, 70])
@torch.no_grad()
def test_the_output_at_the_last_place_alone_is_that_of_all_places(options, length):
    encoder = encoder_of(options).double()
    x = torch.randn(3, length, 8, dtype=torch.float64)
    torch.testing.assert_close(encoder.last(x), encoder(x)[:, -1])


def test_recurrences_are_torchs_and_so_are_their_gradients():
    torch.manual_seed(0)
    gru = torch.nn.GRU(4, 5, 2, bias=False).double()
    x = torch.randn(6, 3, 4, dtype=torch.float64, requires_grad=True)
    found = x
    for weights in gru.all_weights:
        found = gated_recurrence(found, *weights)
    torch.testing.assert_close(found, gru(x)[0])
    weights = [w.detach().requires_grad_() for w in gru.all_weights[0]]
    assert torch.autograd.gradcheck(gated_recurrence, (x, *weights))
