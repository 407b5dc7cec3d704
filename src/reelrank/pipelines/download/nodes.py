"""Fetch a release."""

from __future__ import annotations

from reelrank.sources.download import DownloadOptions, fetch_release
from reelrank.sources.releases import find_release


def download(options: DownloadOptions) -> None:
    """Put the official files where ingestion looks for them."""
    fetch_release(find_release(options.source, options.variant), options)
