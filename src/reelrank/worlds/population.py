"""What every world draws alike: topics, items, users with drifting interests, who follows whom, and a logging policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from reelrank.worlds import latent
from reelrank.worlds.policy import Policy, alias_table
from reelrank.worlds.population_options import FeedOptions, PopulationOptions
from reelrank.worlds.response import Doubles
from reelrank.worlds.truth import FEEDBACK_TERMS, REWARD_TERMS


class Population(NamedTuple):
    """Topics (K, d), items, users' own interests (U, d) before friends pull at them, the graph, and interests in time."""

    topics: latent.Floats
    items: latent.Items
    own: latent.Floats
    graph: latent.SocialGraph
    interests: latent.Interests


def draw_items(o: PopulationOptions, n_items: int) -> tuple[latent.Floats, latent.Items]:
    """Topics (K, d), and items around them."""
    topics = latent.draw_topics(latent.stream(o.seed, "topics"), o.topics, o.latent_dim)
    items = latent.draw_items(latent.stream(o.seed, "items"), n_items, topics, o.topic_spread)
    return topics, items


def draw_population(o: PopulationOptions, n_items: int) -> Population:
    """Draw items around topics, users who follow their like, and the direction in which interests turn."""
    topics, items = draw_items(o, n_items)
    rng = latent.stream(o.seed, "interests")
    own = latent.draw_interests(rng, o.users, topics)
    graph = latent.draw_social_graph(
        latent.stream(o.seed, "social"), own, o.social_degree, o.homophily
    )
    start = latent.smooth_over_graph(own, graph, o.social_weight)
    towards = latent.draw_interests(rng, o.users, topics)
    interests = latent.rotating_interests(rng, start, towards, o.drift)
    return Population(topics, items, own, graph, interests)


def logging_policy(
    o: FeedOptions,
    popularity: Doubles,
    *,
    value_weights: Sequence[float] = (),
    topic: latent.Ints | None = None,
) -> Policy:
    """The policy that draws candidates by ``popularity`` (V,) and ranks them by the planted head weights.

    Args:
        o: options of the world.
        popularity: of the videos.
        value_weights: four, of the value heads, where the world ranks by them too.
        topic: of the videos (V,), in a world with session shocks.
    """
    keep, other = alias_table(popularity)
    return Policy(
        weights=np.array([getattr(o.head_weights, name) for name in FEEDBACK_TERMS]),
        temperature=o.temperature,
        n_candidates=o.candidates,
        alias_keep=keep,
        alias_other=other,
        reward=np.array([getattr(o.reward, name) for name in REWARD_TERMS]),
        value_weights=np.array(value_weights, np.float64),
        topic=np.zeros(0, np.int32) if topic is None else topic,
    )


def seed_of(seed: int, purpose: str) -> int:
    """A seed for compiled code, one per purpose."""
    return int(latent.stream(seed, purpose).integers(2**62))
