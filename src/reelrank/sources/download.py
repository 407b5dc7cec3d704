"""Fetch official releases: resumed, verified, unpacked where nothing can escape, put in place whole or not at all."""

from __future__ import annotations

import gzip
import json
import logging
import shutil
import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import pooch
import requests
from pydantic import Field
from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from urllib3.exceptions import HTTPError as BrokenTransfer

from reelrank.atomic import replace_file, replace_folder
from reelrank.options import Options
from reelrank.sources.releases import PERSONAL_DATA, Release, RemoteFile

WORK_FOLDER = ".downloads"  # below the root: unfinished files
MARKER = ".release.json"  # in a finished folder: what was unpacked there
CHUNK = 2**16
UNPACK_CHUNK = 2**20
MAX_MEMBERS = 1000  # the largest release has some fifteen files
MAX_RATIO = 100  # of unpacked to packed bytes; CSV logs reach about ten
ALWAYS_ALLOWED = 2**20  # unpacked bytes to which the ratio is not applied
LONGEST_WAIT_S = 60.0
TRY_LATER = frozenset({408, 425, 429})  # client errors that pass

log = logging.getLogger(__name__)


class DownloadError(RuntimeError):
    """A file could not be had; the message names the address, what happened and what to do."""


class UnsafeArchive(ValueError):
    """An archive that would write outside its folder, or more than it may."""


class DownloadOptions(Options):
    """What to fetch, from where, to where."""

    source: str = Field(description="data set: kuairand, kuairec, kuaisar")
    variant: str | None = Field(None, description="its release; null: the smallest")
    root: Path = Field(description="folder that gets KuaiRand-Pure/ and the like")
    mirror: str | None = Field(
        None,
        pattern="^https?://",
        description="address of a folder with the same file names; null: the publisher's",
    )
    extras: bool = Field(False, description="also the optional files: captions, categories")
    timeout_s: float = Field(60, gt=0, le=3600, description="longest silence of a server, seconds")
    retries: int = Field(5, ge=0, le=100, description="attempts in a row that bring nothing new")
    wait_s: float = Field(
        2, ge=0, le=60, description="before the first of them, seconds; doubled each time"
    )


def fetch_release(release: Release, options: DownloadOptions) -> Path:
    """Put a release at ``<root>/<folder>``; what is there and verified is not fetched again.

    An interrupted download goes on where it stopped. Only a finished folder takes its place: unpacking happens beside it.

    Returns:
        the release's folder.

    Raises:
        DownloadError: a file could not be had, is not the published one, or would replace files that others put there.
        UnsafeArchive: the archive is not what a release may be.
    """
    target = options.root / release.folder
    address = options.mirror or release.archive.url
    Console().print(
        Panel(
            f"{release.licence}\nfrom {address}\nto {target}",
            title=f"{release.source} {release.variant}",
            subtitle="by using it you accept its licence",
        )
    )
    if _is_finished(target, release):
        log.info("%s is there and as it was unpacked", target)
    else:
        _fetch_archive(release, target, options)
    for extra in release.extras if options.extras else ():
        _fetch(extra, target / "data", options)
    if release.extras and not options.extras:
        names = ", ".join(extra.name for extra in release.extras)
        log.info("not fetched: %s (--params download.extras=true fetches them too)", names)
    return target


def _is_finished(target: Path, release: Release) -> bool:
    """Whether the release lies there, file by file in the sizes that were unpacked.

    Raises:
        DownloadError: the folder holds files that were not put there by a download.
    """
    marker = target / MARKER
    if not marker.is_file():
        if target.is_dir() and any(target.iterdir()):
            raise DownloadError(
                f"{target} holds files that no download of reelrank put there, and they are left alone: "
                f"move the folder away to fetch {release.archive.url}, or use it with kind: files"
            )
        return False
    unpacked = json.loads(marker.read_text(encoding="utf-8"))
    return unpacked["file"] == release.archive.name and all(
        (target / name).is_file() and (target / name).stat().st_size == size
        for name, size in unpacked["sizes"].items()
    )


def _fetch_archive(release: Release, target: Path, options: DownloadOptions) -> None:
    work = options.root / WORK_FOLDER
    archive = _fetch(release.archive, work, options)
    staging = work / f"{archive.name}.unpacking"
    shutil.rmtree(staging, ignore_errors=True)
    try:
        log.info("unpacking %s", archive)
        unpack(archive, staging, release.archive.max_bytes)
        content = _sole_folder(staging)
        sizes = {
            p.relative_to(content).as_posix(): p.stat().st_size
            for p in sorted(content.rglob("*"))
            if p.is_file()
        }
        sha256 = pooch.file_hash(str(archive))
        text = json.dumps({"file": archive.name, "sha256": sha256, "sizes": sizes}, indent=1)
        (content / MARKER).write_text(text + "\n", encoding="utf-8")
        replace_folder(content, target)
    except (UnsafeArchive, DownloadError):
        archive.unlink()  # the next run fetches another
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    archive.unlink()
    log.info("%s: %d files, sha256 of the archive %s", target, len(sizes), sha256)


def _sole_folder(staging: Path) -> Path:
    """The folder that holds everything in an archive: releases name it differently from edition to edition."""
    entries = list(staging.iterdir())
    return entries[0] if len(entries) == 1 and entries[0].is_dir() else staging


def _fetch(file: RemoteFile, folder: Path, options: DownloadOptions) -> Path:
    """The file in ``folder``, fetched unless it is there with its checksum."""
    url = f"{options.mirror.rstrip('/')}/{file.name}" if options.mirror else file.url
    work = options.root / WORK_FOLDER
    work.mkdir(parents=True, exist_ok=True)
    pooch.get_logger().setLevel("WARNING")
    # pooch looks up what is there, verifies and puts in place; it cannot resume, so the transfer is ours
    transfer = ResumedTransfer(file, work / f"{file.name}.partial", options)
    try:
        path = pooch.retrieve(url, file.checksum, file.name, folder, downloader=transfer)
    except ValueError as error:  # pooch's word for a wrong checksum; it has deleted the file
        raise DownloadError(
            f"{url}: what came is not the published file, and was deleted: {error}. Run again; if it stays "
            "so, name another address with --params download.mirror=https://…"
        ) from error
    return Path(path)


class _Interrupted(Exception):
    """A transfer that may go on."""


@dataclass(frozen=True)
class ResumedTransfer:
    """A downloader for pooch that goes on where an earlier transfer broke off.

    What has come lies in ``partial``, the address and the server's version of the file beside it: a file without a
    published checksum goes on only if the server says that it is still the same one.
    """

    file: RemoteFile
    partial: Path
    options: DownloadOptions

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        """Fetch ``url`` into ``output_file``.

        Raises:
            DownloadError: the server refuses, sends too much, or brings nothing new time after time.
        """
        furthest, idle = self._received(), 0
        with _progress() as progress:
            while True:
                try:
                    self._receive(url, progress)
                    break
                except (requests.RequestException, BrokenTransfer, _Interrupted) as error:
                    status = getattr(getattr(error, "response", None), "status_code", 0)
                    if 400 <= status < 500 and status not in TRY_LATER:
                        raise self._failure(url, f"the server answered {status}") from error
                    came = self._received()
                    idle = 0 if came > furthest else idle + 1
                    furthest = max(came, furthest)
                    if idle > self.options.retries:
                        what = f"{error} ({idle} attempts in a row brought nothing new; {came:,} bytes are kept)"
                        raise self._failure(url, what) from error
                    log.warning("%s: %s; trying again", url, error)
                    time.sleep(min(self.options.wait_s * 2**idle, LONGEST_WAIT_S))
        self.partial.replace(output_file)
        self._state.unlink(missing_ok=True)

    def _failure(self, url: str, what: str) -> DownloadError:
        return DownloadError(
            f"{url}: {what}. Run the same command again later (what has come is kept), name another address with "
            "--params download.mirror=https://…, or fetch the file by hand and set kind: files"
        )

    @property
    def _state(self) -> Path:
        return self.partial.with_name(f"{self.partial.name}.json")

    def _received(self) -> int:
        return self.partial.stat().st_size if self.partial.is_file() else 0

    def _edition(self, url: str) -> str:
        """The server's name for the edition that ``partial`` is a part of; empty if unknown."""
        if not self._state.is_file():
            return ""
        stored = json.loads(self._state.read_text(encoding="utf-8"))
        return str(stored["edition"]) if stored["url"] == url else ""

    def _receive(self, url: str, progress: Progress) -> None:
        """One request; appends to ``partial`` if the server goes on there, else starts anew."""
        received, edition = self._received(), self._edition(url)
        headers = {"Accept-Encoding": "identity", "User-Agent": "reelrank"}
        if received and self.file.checksum:
            headers["Range"] = f"bytes={received}-"
        elif received and edition:  # two editions would be joined unseen
            headers |= {"Range": f"bytes={received}-", "If-Range": edition}
        with requests.get(
            url, headers=headers, stream=True, timeout=self.options.timeout_s
        ) as answer:
            goes_on = answer.status_code == requests.codes.partial_content
            offset, total = _announced(answer)
            if answer.status_code == 416 or (goes_on and offset != received):
                self.partial.unlink()
                raise _Interrupted(f"the server has no byte {received:,}; starting anew")
            answer.raise_for_status()
            if total is not None and total > self.file.max_bytes:
                raise self._too_much(url, total)
            tag = answer.headers.get("ETag", "")
            weak = not tag or tag.startswith("W/")
            edition = answer.headers.get("Last-Modified", "") if weak else tag
            with replace_file(self._state) as temporary:
                temporary.write_text(json.dumps({"url": url, "edition": edition}), encoding="utf-8")
            size = received if goes_on else 0
            bar = progress.add_task(self.file.name, total=total, completed=size)
            with self.partial.open("ab" if goes_on else "wb") as file:
                # not decoded: some servers declare a .gz file to be an encoding
                for chunk in answer.raw.stream(CHUNK, decode_content=False):
                    size += len(chunk)
                    if size > self.file.max_bytes:
                        file.truncate(0)
                        raise self._too_much(url, size)
                    file.write(chunk)
                    progress.update(bar, completed=size)
            if total is not None and size != total:
                raise _Interrupted(
                    f"{size:,} of the {total:,} bytes that the server announced came"
                )

    def _too_much(self, url: str, size: int) -> DownloadError:
        limit = f"at most {self.file.max_bytes:,} are expected of {self.file.name}"
        return self._failure(url, f"{size:,} bytes, {limit}")


def _announced(answer: requests.Response) -> tuple[int, int | None]:
    """Where the content begins and how long the whole file is, if the server says so."""
    if answer.status_code == requests.codes.partial_content:
        span, _, whole = (
            answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        )
        start = span.partition("-")[0]
        return int(start) if start.isdigit() else -1, int(whole) if whole.isdigit() else None
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _progress() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


Kind = Literal["file", "folder", "link, device or encrypted file"]


@dataclass(frozen=True)
class _Member:
    name: str
    kind: Kind
    open: Callable[[], IO[bytes] | None]


def unpack(archive: Path, into: Path, max_bytes: int) -> None:
    """Unpack a zip or tar.gz into a new folder; only files and folders, and nothing outside ``into``.

    Personal data and what desktop systems leave in archives is left out.

    Raises:
        UnsafeArchive: a path leads out of the folder, a member is a link or a device or occurs twice, there are more
            than ``MAX_MEMBERS``, or more bytes than ``max_bytes`` or ``MAX_RATIO`` times the archive's. What was
            unpacked until then is the caller's to remove.
        DownloadError: the archive is damaged.
    """
    allowed = min(max_bytes, max(MAX_RATIO * archive.stat().st_size, ALWAYS_ALLOWED))
    into.mkdir(parents=True)
    try:
        for number, member in enumerate(_members(archive), 1):
            if number > MAX_MEMBERS:
                raise UnsafeArchive(f"{archive} holds more than {MAX_MEMBERS:,} files")
            path = into / _relative(member.name, archive)
            if member.kind == "folder":
                path.mkdir(parents=True, exist_ok=True)
            elif member.kind != "file":
                raise UnsafeArchive(f"{archive}: {member.name!r} is a {member.kind}")
            elif path.name in PERSONAL_DATA:
                log.warning("%s: %s is personal data and was not unpacked", archive, member.name)
            elif not _is_litter(path.relative_to(into)):
                allowed -= _write(member, path, allowed, archive)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, NotImplementedError) as error:  # fmt: skip
        raise DownloadError(
            f"{archive} is damaged ({error}): delete it if it is still there, and run the same command again"
        ) from error


def _write(member: _Member, path: Path, allowed: int, archive: Path) -> int:
    """Copy one member, at most ``allowed`` bytes; how many it had."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise UnsafeArchive(f"{archive}: {member.name!r} occurs twice")
    data = member.open()
    if data is None:
        raise UnsafeArchive(f"{archive}: {member.name!r} has no content")
    written = 0
    with data, path.open("wb") as file:
        while chunk := data.read(UNPACK_CHUNK):
            written += len(chunk)
            if written > allowed:
                raise UnsafeArchive(
                    f"{archive} unpacks to more than its release can hold, or to more than {MAX_RATIO} times its size "
                    f"(stopped in {member.name!r})"
                )
            file.write(chunk)
    return written


def _members(archive: Path) -> Iterator[_Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for entry in packed.infolist():
                mode = stat.S_IFMT(entry.external_attr >> 16)
                plain = mode in {0, stat.S_IFREG, stat.S_IFDIR} and not entry.flag_bits & 1
                kind = _kind(plain and entry.is_dir(), plain)
                yield _Member(entry.filename, kind, partial(packed.open, entry))
    else:
        with _Gzip(archive) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            for info in tar:
                kind = _kind(info.isdir(), info.isfile())
                yield _Member(info.name, kind, partial(tar.extractfile, info))


def _kind(is_folder: bool, is_file: bool) -> Kind:
    return "folder" if is_folder else "file" if is_file else "link, device or encrypted file"


class _Gzip(gzip.GzipFile):
    """A gzip file that is read in small pieces only: tarfile would read a header of any claimed size into memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= UNPACK_CHUNK:
            raise UnsafeArchive(f"{self.name}: a header claims {size:,} bytes")
        return super().read(size)


def _relative(name: str, archive: Path) -> PurePosixPath:
    """A member's path, if it stays inside."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or any(c in name for c in "\\\0:"):
        raise UnsafeArchive(f"{archive}: {name!r} leads out of the folder")
    return path


def _is_litter(path: Path) -> bool:
    return path.parts[0] == "__MACOSX" or path.name == ".DS_Store"
