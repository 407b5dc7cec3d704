import numpy as np
import polars as pl
import pytest
import torch
from support.model_inputs import N_ITEMS, TOKENS, modal_frame

from reelrank.models.item_tokens import ItemTokens
from reelrank.tables import MODALITIES

ABSENT = ((1, "audio"), (2, "visual"), (2, "audio"), (2, "text"))


def test_shapes_masks_and_presence():
    tokens = ItemTokens.from_frame(modal_frame(absent=ABSENT), N_ITEMS, range(N_ITEMS))
    for name, m in zip(MODALITIES, tokens.modalities, strict=True):
        assert m.x.shape == (N_ITEMS, *TOKENS[name])
        assert m.x.dtype == torch.float32
        assert (m.x[~m.mask] == 0).all()
        assert m.present.tolist() == [(i, name) not in ABSENT for i in range(N_ITEMS)]
        assert torch.equal(m.mask.any(1), m.present)


def test_tokens_keep_their_place_whatever_the_order_of_rows():
    frame = modal_frame()
    plain = ItemTokens.from_frame(frame, N_ITEMS, range(N_ITEMS))
    shuffled = ItemTokens.from_frame(
        frame.sample(fraction=1, shuffle=True, seed=1), N_ITEMS, range(N_ITEMS)
    )
    for a, b in zip(plain.modalities, shuffled.modalities, strict=True):
        assert torch.equal(a.mask, b.mask)
        torch.testing.assert_close(a.x, b.x)


def test_moments_are_of_train_items_only():
    train = [0, 1, 2, 3]
    frame = modal_frame()
    tokens = ItemTokens.from_frame(frame, N_ITEMS, train)
    for m in tokens.modalities:
        fitted = m.x[train][m.mask[train]]
        torch.testing.assert_close(fitted.mean(0), torch.zeros(m.x.shape[2]), atol=1e-5, rtol=0)
        torch.testing.assert_close(fitted.std(0, correction=0), torch.ones(m.x.shape[2]))
    later = pl.col("item_id") > 3
    other = frame.with_columns(
        array=pl.when(later).then(pl.col("array").list.eval(pl.element() * 9)).otherwise("array")
    )
    again = ItemTokens.from_frame(other, N_ITEMS, train)
    for a, b in zip(tokens.modalities, again.modalities, strict=True):
        assert torch.equal(a.x[train], b.x[train])


def test_a_modality_that_no_item_has_keeps_one_empty_token():
    frame = modal_frame().filter(pl.col("modality") != "audio")
    audio = ItemTokens.from_frame(frame, N_ITEMS, range(N_ITEMS)).modalities[1]
    assert audio.x.shape == (N_ITEMS, 1, 1)
    assert not audio.present.any()


def test_a_constant_dimension_does_not_explode():
    frame = modal_frame().with_columns(array=pl.col("array").list.eval(pl.element() * 0 + 5))
    for m in ItemTokens.from_frame(frame, N_ITEMS, np.arange(3)).modalities:
        assert (m.x == 0).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.with_columns(item_id=pl.lit(99, pl.Int32)), "item_id 99 is outside"),
        (lambda f: pl.concat([f, f.head(1)]), "two rows for one"),
        (
            lambda f: f.with_columns(array=pl.col("array").list.head(1)),
            "has 1 values, not n_tokens",
        ),
        (
            lambda f: f.with_columns(dim=(pl.col("item_id") + 1).cast(pl.Int16)),
            "dim differs inside modality",
        ),
    ],
)
def test_bad_frames_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ItemTokens.from_frame(change(modal_frame()), N_ITEMS, range(N_ITEMS))
