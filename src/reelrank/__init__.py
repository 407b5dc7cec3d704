"""reelrank: from short-video logs to ranking policies, with an honest evaluation."""

__version__ = "0.1.0"
