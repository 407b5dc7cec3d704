"""Parameters of the KuaiRand world (``worlds.kuairand`` in the configuration)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from reelrank.options import Options
from reelrank.worlds.population_options import FeedOptions


class ModalityOptions(Options):
    """How one modality shows the topic of a video."""

    tokens: int = Field(4, ge=1, le=512, description="vectors in the sequence (T)")
    dim: int = Field(32, ge=1, le=4096, description="width of a vector (D)")
    snr_db: float = Field(
        10.0, ge=-200, le=100, description="signal-to-noise ratio in dB; −100 is pure noise"
    )
    missing_rate: float = Field(
        0.02, ge=0, lt=1, description="share of videos without this modality"
    )


class WorldOptions(FeedOptions):
    """A KuaiRand world. The days are the release's: 2022-04-08 to 05-08, local time."""

    variant: Literal["pure"] = Field("pure", description="official folder and file names")
    users: int = Field(600, ge=200, le=2_000_000, description="users; fewer than 200 train nothing")
    videos: int = Field(500, ge=100, le=2_000_000, description="videos = pool of the random log")
    exposures_per_user: float = Field(
        100.0, ge=10, le=5_000, description="mean rows of the standard logs per user"
    )
    random_per_user: float = Field(
        5.0, ge=0, le=1_000, description="mean rows of the random log per user, from 04-22 on"
    )
    session_rows: float = Field(8.0, ge=1, le=100, description="mean rows of a session")
    request_rows: float = Field(
        5.0, ge=1, le=50, description="mean rows that share one time_ms (27K: 5)"
    )
    tab_stay: float = Field(0.7, ge=0, lt=1, description="P(a request stays in the tab before it)")
    video_sd: float = Field(0.4, ge=0, le=3, description="sd of a video's own level, per head")
    feedback_rate: float = Field(
        1.0,
        gt=0,
        le=100,
        description="rates of like, follow, comment, forward and hate over the real ones; at most 1/2 each",
    )
    popularity_sd: float = Field(
        1.35, ge=0, le=3, description="sd of log popularity among candidates"
    )
    visual: ModalityOptions = Field(ModalityOptions(tokens=4, dim=32), description="visual")
    audio: ModalityOptions = Field(ModalityOptions(tokens=4, dim=16), description="audio")
    text: ModalityOptions = Field(ModalityOptions(tokens=8, dim=32), description="text")

    @model_validator(mode="after")
    def _candidates_exist(self) -> WorldOptions:
        if self.videos < 10 * self.candidates:
            raise ValueError(
                f"videos = {self.videos} is too few for {self.candidates} distinct candidates at the start of the log; "
                f"set videos to at least {10 * self.candidates} or candidates to at most {self.videos // 10}"
            )
        return self
