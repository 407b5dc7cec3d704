"""Where the official releases can be had: address, published checksum, bounds on size, licence.

Bounds are about twice the official sizes [D]: they stop a server that sends without end, not a new edition.

Source: the data sets' own pages, SCHEMAS §1–§4 [S].
"""

from __future__ import annotations

from dataclasses import dataclass

from reelrank.sources import kuairand_schema, kuairec_schema, kuaisar_schema

GB = 10**9
# never fetched, never unpacked
PERSONAL_DATA = frozenset(kuairec_schema.REFUSED_FILES)


class UnknownRelease(ValueError):
    """No such release, or none that can be fetched without a person; the message says what to do."""


@dataclass(frozen=True)
class RemoteFile:
    """One published file.

    ``checksum`` is ``md5:…`` or ``sha256:…`` of the file, None where none is published; ``max_bytes`` bounds the file
    and, for an archive, all that it unpacks to.
    """

    url: str
    max_bytes: int
    checksum: str | None = None

    @property
    def name(self) -> str:
        """File name, the last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Release:
    """One variant of a data set: an archive that becomes ``folder``, and further files for ``folder/data``."""

    source: str
    variant: str
    folder: str
    archive: RemoteFile
    extras: tuple[RemoteFile, ...]
    licence: str


_KUAIRAND: dict[kuairand_schema.Variant, tuple[str, int]] = {
    "pure": ("md5:0820331067a3784d9691136f772b35a7", GB),
    "1k": ("md5:6b0b9c8222d67fcd4c676218edca3f1f", 10 * GB),
    "27k": ("md5:3e3c799a24e2d23a4d2c757fbf9adf59", 100 * GB),
}
_KUAIRAND_EXTRAS = tuple(
    RemoteFile(
        f"{kuairand_schema.EXTRA_DOWNLOADS}/files/{name}",
        20 * GB,
        f"md5:{kuairand_schema.OFFICIAL_MD5[name]}",
    )
    for name in ("kuairand_video_captions.csv", "kuairand_video_categories.csv")
)
_KUAIREC_EXTRAS = tuple(
    RemoteFile(url, GB, f"md5:{md5}" if (md5 := kuairec_schema.OFFICIAL_MD5.get(name)) else None)
    for name, url in kuairec_schema.EXTRA_DOWNLOADS.items()
)
_KUAISAR_BYTES: dict[kuaisar_schema.Variant, int] = {"small": 5 * GB, "full": 10 * GB}

# a source's smallest release comes first
RELEASES: tuple[Release, ...] = (
    *(
        Release(
            "kuairand",
            variant,
            kuairand_schema.FOLDERS[variant],
            RemoteFile(kuairand_schema.DOWNLOADS[variant], max_bytes, checksum),
            _KUAIRAND_EXTRAS,
            kuairand_schema.LICENCE,
        )
        for variant, (checksum, max_bytes) in _KUAIRAND.items()
    ),
    Release(
        "kuairec",
        "v2",
        kuairec_schema.FOLDERS["v2"][0],
        RemoteFile(kuairec_schema.DOWNLOADS["v2"], 5 * GB),
        _KUAIREC_EXTRAS,
        kuairec_schema.LICENCE,
    ),
    *(
        Release(
            "kuaisar",
            variant,
            kuaisar_schema.FOLDERS[variant][0],
            RemoteFile(kuaisar_schema.DOWNLOADS[variant], max_bytes),
            (),
            kuaisar_schema.LICENCE,
        )
        for variant, max_bytes in _KUAISAR_BYTES.items()
    ),
)
_BY_HAND = {
    "weibo": "Weibo's interactions lie behind a log-in (Tianchi, https://tianchi.aliyun.com, entrance 231574) and may not be "
    "passed on: fetch them there by hand, and set raw_root to their folder."
}


def find_release(source: str, variant: str | None = None) -> Release:
    """A release by name; the source's smallest where ``variant`` is None.

    Raises:
        UnknownRelease: nothing by that name can be fetched.
    """
    if source in _BY_HAND:
        raise UnknownRelease(_BY_HAND[source])
    known = [release for release in RELEASES if release.source == source]
    if not known:
        names = ", ".join(dict.fromkeys(release.source for release in RELEASES))
        raise UnknownRelease(f"No release of {source!r} is known; source is one of {names}.")
    for release in known:
        if variant in {None, release.variant}:
            return release
    variants = ", ".join(release.variant for release in known)
    raise UnknownRelease(f"{source} has no variant {variant!r}; variant is one of {variants}.")
