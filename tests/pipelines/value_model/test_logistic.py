import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import OneHotEncoder
from support.value_examples import random_examples

from reelrank.pipelines.value_model.fitting import restore, train_logistic
from reelrank.pipelines.value_model.logistic import fit_logistic
from reelrank.pipelines.value_model.options import LogisticOptions
from reelrank.training.artifact import ModelCheckpoint


def one_row_per_edge(inputs):
    """The same design by scikit-learn's own encoder."""
    rows = (
        (inputs.user, inputs.user_id),
        (inputs.item, inputs.item_id),
        (inputs.edge, slice(None)),
    )
    continuous = [block.continuous[at] for block, at in rows]
    codes = np.hstack([block.categorical[at] for block, at in rows])
    sizes = [n for block, _ in rows for n in block.cardinalities]
    encoder = OneHotEncoder(categories=[np.arange(n) for n in sizes], sparse_output=False)
    return np.hstack([*continuous, encoder.fit_transform(codes)])


def test_it_is_scikit_learns():
    examples = random_examples()
    examples.labels[:30, 2] = -1
    model, report = fit_logistic(
        examples.inputs, examples.labels, examples.train, LogisticOptions()
    )
    found = model.predict(examples.inputs, block_rows=33)
    design = one_row_per_edge(examples.inputs)
    for j in range(4):
        fit_on = examples.train[examples.labels[examples.train, j] >= 0]
        peer = LogisticRegression(C=1.0, max_iter=1000)
        peer.fit(design[fit_on], examples.labels[fit_on, j])
        assert found[:, j] == pytest.approx(peer.predict_proba(design)[:, 1], abs=2e-3)
    assert report["rows"].to_list() == [240, 240, 210, 240]
    assert report["converged"].all()


def test_a_head_with_one_class_predicts_its_rate():
    examples = random_examples()
    examples.labels[:, 1] = 0
    model, report = fit_logistic(
        examples.inputs, examples.labels, examples.train, LogisticOptions()
    )
    assert model.predict(examples.inputs, 100)[:, 1] == pytest.approx(0.5 / 241)
    assert report["iterations"][1] == 0
    examples.labels[:, 1] = -1
    with pytest.raises(ValueError, match="head 'long' is unknown on all 240 train edges"):
        fit_logistic(examples.inputs, examples.labels, examples.train, LogisticOptions())


def test_rows_are_bounded_and_counted():
    examples = random_examples()
    options = LogisticOptions(max_rows=50, max_iter=2)
    _, report = fit_logistic(examples.inputs, examples.labels, examples.train, options)
    assert report["rows"].to_list() == [50] * 4
    assert not report["converged"].any()


def test_its_checkpoint_predicts_the_same(tmp_path):
    examples = random_examples()
    checkpoint, _ = train_logistic(examples, LogisticOptions())
    checkpoint.write(tmp_path)
    again = restore(ModelCheckpoint.read(tmp_path))
    expected = restore(checkpoint).predict(examples.inputs, 100)
    assert np.array_equal(again.predict(examples.inputs, 100), expected)
    assert again.item_vectors() is None
