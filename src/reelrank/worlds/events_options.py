"""Parameters of the store's log (``worlds.events`` in the configuration)."""

from __future__ import annotations

from pydantic import Field

from reelrank.options import Options


class EventsWorldOptions(Options):
    """A small store whose visitors come by search and by the home page; its days start 2024-05-01, UTC."""

    seed: int = Field(0, ge=0, lt=2**31, description="of every random draw")
    users: int = Field(300, ge=20, le=5_000_000, description="visitors")
    items: int = Field(200, ge=20, le=5_000_000, description="products")
    days: int = Field(14, ge=3, le=365, description="days of the log")
    rows_per_user: float = Field(60.0, ge=5, le=5_000, description="mean rows per visitor")
    session_rows: float = Field(6.0, ge=1, le=100, description="mean rows of a visit")
    stay: float = Field(0.8, ge=0, lt=1, description="P(a row is in the scenario before it)")
    search_share: float = Field(0.3, gt=0, lt=1, description="of the rows, in the long run")
    candidates: int = Field(8, ge=1, le=100, description="products that search chooses from")
    latent_dim: int = Field(16, ge=2, le=256, description="width of interests and topic vectors")
    topics: int = Field(10, ge=2, le=1_000, description="topics = categories")
    topic_spread: float = Field(0.6, ge=0, le=5, description="scatter of products around a topic")
    affinity_sd: float = Field(
        1.5, ge=0, le=5, description="sd over visitor–product pairs of the affinity, in logits"
    )
    search_rate: float = Field(0.3, gt=0, lt=1, description="P(click) in search at affinity 0")
    home_rate: float = Field(0.1, gt=0, lt=1, description="P(click) on the home page at affinity 0")
    buy_rate: float = Field(0.2, gt=0, lt=1, description="P(purchase | click) at affinity 0")
    purchase_reward: float = Field(3.0, ge=0, le=1_000, description="reward of a purchase")
