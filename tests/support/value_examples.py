"""Small inputs of value models: random features, and a planted taste that only a graph can show."""

import numpy as np

from reelrank.models.value_inputs import FeatureBlock, ValueInputs
from reelrank.pipelines.value_model.fitting import Examples


def block(rng, n, continuous, cardinalities):
    codes = [rng.integers(0, c, n) for c in cardinalities]
    return FeatureBlock(
        rng.normal(size=(n, continuous)).astype(np.float32),
        np.array(codes, np.int32).reshape(len(cardinalities), n).T.copy(),
        cardinalities,
    )


def random_inputs(seed=0, n_users=7, n_items=11, n_edges=60, edge_codes=(5, 3)):
    """Edges in no order, with repeats; the last item has none."""
    rng = np.random.default_rng(seed)
    return ValueInputs(
        user=block(rng, n_users, 3, (4, 6)),
        item=block(rng, n_items, 2, (300,)),
        edge=block(rng, n_edges, 4, edge_codes),
        user_id=rng.integers(0, n_users, n_edges).astype(np.int32),
        item_id=rng.integers(0, n_items - 1, n_edges).astype(np.int32),
    )


def random_labels(seed, n_edges, unknown=0.2):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (n_edges, 4)).astype(np.int8)
    labels[rng.random(labels.shape) < unknown] = -1
    return labels


def random_examples(seed=0, n_edges=400):
    """Labels that the edge's first continuous column makes likelier; parts in the order of rows."""
    inputs = random_inputs(seed, n_edges=n_edges)
    rng = np.random.default_rng(seed + 1)
    z = inputs.edge.continuous[:, :1] + 0.3 * rng.normal(size=(n_edges, 4))
    cut = np.array([0.6, 0.8, 1.0]) * n_edges
    parts = np.split(np.arange(n_edges), cut[:2].astype(int))
    return Examples(inputs, (z > 0).astype(np.int8), *parts)


def taste_examples(seed=0, n_users=120, n_items=80, per_user=30):
    """Two groups of users and of items that no feature shows; likes and most views are inside the group."""
    rng = np.random.default_rng(seed)
    user_group, item_group = rng.integers(0, 2, n_users), rng.integers(0, 2, n_items)
    user = np.repeat(np.arange(n_users), per_user)
    odds = np.where(user_group[:, None] == item_group[None, :], 9.0, 1.0)
    odds /= odds.sum(1, keepdims=True)
    item = np.concatenate([rng.choice(n_items, per_user, replace=False, p=p) for p in odds])
    same = user_group[user] == item_group[item]
    labels = (rng.random((len(user), 4)) < np.where(same, 0.8, 0.2)[:, None]).astype(np.int8)
    labels[:, 3] = 1 - labels[:, 3]
    inputs = ValueInputs(
        user=block(rng, n_users, 2, (3,)),
        item=block(rng, n_items, 2, (3,)),
        edge=block(rng, len(user), 2, (3,)),
        user_id=user.astype(np.int32),
        item_id=item.astype(np.int32),
    )
    order = rng.permutation(len(user))
    parts = np.split(order, (np.array([0.6, 0.8]) * len(user)).astype(int))
    return Examples(inputs, labels, *(np.sort(part) for part in parts))
