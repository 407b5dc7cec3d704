"""Downloads survive a bad network and a bad server, and archives stay in their folder."""

import gzip
import hashlib
import io
import random
import stat
import tarfile
import zipfile
from dataclasses import replace

import pytest
from support.file_server import serve

from reelrank.sources import download
from reelrank.sources.download import (
    MARKER,
    WORK_FOLDER,
    DownloadError,
    DownloadOptions,
    UnsafeArchive,
    fetch_release,
    unpack,
)
from reelrank.sources.releases import RELEASES, Release, RemoteFile, UnknownRelease, find_release

# not compressible, so that an archive is long enough to break off in
LOG = random.Random(0).randbytes(400_000)
CAPTIONS = b"final_video_id,caption\n1,x\n"


def tar_of(members):
    """A tar.gz of (name or TarInfo, content)."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def zip_of(members):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return packed.getvalue()


ARCHIVE = tar_of([("KuaiRand-Pure/data/log.csv", LOG), ("KuaiRand-Pure/load.py", b"pass\n")])


@pytest.fixture
def site():
    with serve() as opened:
        opened.files = {"pure.tar.gz": ARCHIVE, "captions.csv": CAPTIONS}
        yield opened


def md5(content):
    return f"md5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}"


ARCHIVE_MD5 = md5(ARCHIVE)


def release_of(site, *, checksum=ARCHIVE_MD5, max_bytes=10**6):
    return Release(
        "kuairand",
        "pure",
        "KuaiRand-Pure",
        RemoteFile(f"{site.url}/pure.tar.gz", max_bytes, checksum),
        (RemoteFile(f"{site.url}/captions.csv", max_bytes, md5(CAPTIONS)),),
        "CC BY-SA 4.0, © the authors",
    )


@pytest.fixture
def options(tmp_path):
    return DownloadOptions(source="kuairand", root=tmp_path / "raw", wait_s=0, retries=2)


def check_whole(root):
    folder = root / "KuaiRand-Pure"
    assert (folder / "data/log.csv").read_bytes() == LOG
    assert (folder / "load.py").read_bytes() == b"pass\n"
    assert [p.name for p in root.iterdir() if p.name != WORK_FOLDER] == ["KuaiRand-Pure"]
    assert list((root / WORK_FOLDER).iterdir()) == []


def test_a_release_is_fetched_once_and_its_licence_is_shown(site, options, capsys):
    folder = fetch_release(release_of(site), options)
    assert folder == options.root / "KuaiRand-Pure"
    check_whole(options.root)
    assert "CC BY-SA 4.0" in capsys.readouterr().out
    assert fetch_release(release_of(site), options) == folder
    assert [name for name, _ in site.requests] == ["pure.tar.gz"]
    (folder / "data/log.csv").write_bytes(LOG[:-1])
    fetch_release(release_of(site), options)
    check_whole(options.root)
    assert len(site.requests) == 2


def test_extras_come_when_asked_for_and_leave_the_rest_alone(site, options):
    release = release_of(site)
    folder = fetch_release(release, options)
    for _ in range(2):
        fetch_release(release, options.model_copy(update={"extras": True}))
    assert (folder / "data/captions.csv").read_bytes() == CAPTIONS
    assert [name for name, _ in site.requests] == ["pure.tar.gz", "captions.csv"]


@pytest.mark.parametrize("checksum", [ARCHIVE_MD5, None], ids=["with checksum", "without"])
def test_a_broken_transfer_goes_on_where_it_stopped(site, options, checksum):
    site.break_after = [100_000, 150_000]
    fetch_release(release_of(site, checksum=checksum), options)
    check_whole(options.root)
    offsets = [span for _, span in site.requests]
    assert offsets[0] is None
    first, second = (int(span.removeprefix("bytes=").rstrip("-")) for span in offsets[1:])
    assert 0 < first <= 100_000 and first < second <= first + 150_000


def test_the_next_run_goes_on_where_a_stopped_one_was(site, options):
    site.break_after = [100_000, 0, 0, 0]
    with pytest.raises(
        DownloadError, match=r"pure\.tar\.gz: .*brought nothing new.*download\.mirror"
    ):
        fetch_release(release_of(site), options)
    assert not (options.root / "KuaiRand-Pure").exists()
    site.requests.clear()
    fetch_release(release_of(site), options)
    check_whole(options.root)
    assert len(site.requests) == 1 and site.requests[0][1] is not None


def test_a_server_without_ranges_starts_anew(site, options):
    site.ranges = False
    site.break_after = [100_000, 200_000]
    fetch_release(release_of(site), options)
    check_whole(options.root)


def test_another_edition_is_never_joined_to_the_first(site, options):
    """Without a checksum only the server can say that a file is still the same."""
    release = release_of(site, checksum=None)
    site.break_after = [100_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch_release(release, options)
    other = tar_of(
        [("KuaiRand-Pure/data/log.csv", LOG[::-1]), ("KuaiRand-Pure/load.py", b"pass\n")]
    )
    site.files["pure.tar.gz"], site.edition = other, '"2"'
    folder = fetch_release(release, options)
    assert (folder / "data/log.csv").read_bytes() == LOG[::-1]


def test_a_server_that_cannot_name_an_edition_starts_anew_without_a_checksum(site, options):
    site.edition = ""
    site.break_after = [100_000]
    fetch_release(release_of(site, checksum=None), options)
    check_whole(options.root)
    assert [span for _, span in site.requests] == [None, None]


def test_what_is_longer_than_the_server_s_file_is_dropped(site, options):
    work = options.root / WORK_FOLDER
    work.mkdir(parents=True)
    (work / "pure.tar.gz.partial").write_bytes(bytes(len(ARCHIVE) + 5))
    fetch_release(release_of(site), options)
    check_whole(options.root)


def test_more_announced_than_sent(site, options):
    site.claim_more = 1000
    with pytest.raises(DownloadError, match="brought nothing new"):
        fetch_release(release_of(site), options)
    assert not (options.root / "KuaiRand-Pure").exists()


@pytest.mark.parametrize("announce", [True, False])
def test_more_than_a_release_can_hold_is_refused(site, options, announce):
    site.announce = announce
    with pytest.raises(DownloadError, match=r"pure\.tar\.gz: .*at most 300,000 are expected"):
        fetch_release(release_of(site, max_bytes=300_000), options)
    partial = options.root / WORK_FOLDER / "pure.tar.gz.partial"
    assert not partial.exists() or partial.stat().st_size == 0


def test_a_wrong_checksum_leaves_nothing_behind(site, options):
    wrong = "md5:" + 32 * "0"
    with pytest.raises(
        DownloadError, match=r"pure\.tar\.gz: what came is not the published file.*mirror"
    ):
        fetch_release(release_of(site, checksum=wrong), options)
    assert list((options.root / WORK_FOLDER).iterdir()) == []
    assert not (options.root / "KuaiRand-Pure").exists()


def test_a_server_that_recovers_is_asked_again(site, options):
    site.statuses = [500, 503]
    fetch_release(release_of(site), options)
    check_whole(options.root)
    assert len(site.requests) == 3


def test_a_missing_file_is_not_asked_for_twice(site, options):
    del site.files["pure.tar.gz"]
    with pytest.raises(DownloadError, match=r"pure\.tar\.gz: the server answered 404.*by hand"):
        fetch_release(release_of(site), options)
    assert len(site.requests) == 1


def test_a_mirror_is_asked_instead(site, options):
    release = release_of(site)
    elsewhere = replace(
        release, archive=replace(release.archive, url="http://127.0.0.1:9/pure.tar.gz")
    )
    fetch_release(elsewhere, options.model_copy(update={"mirror": f"{site.url}/copies/"}))
    check_whole(options.root)


def test_files_of_others_are_left_alone(site, options):
    folder = options.root / "KuaiRand-Pure/data"
    folder.mkdir(parents=True)
    (folder / "mine.csv").write_text("1")
    with pytest.raises(DownloadError, match="left alone"):
        fetch_release(release_of(site), options)
    assert site.requests == [] and (folder / "mine.csv").read_text() == "1"


def test_a_run_stopped_while_unpacking_leaves_nothing_half_and_fetches_nothing_again(
    site, options, monkeypatch
):
    def stopped(archive, into, max_bytes):
        into.mkdir(parents=True)
        (into / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "unpack", stopped)
    with pytest.raises(KeyboardInterrupt):
        fetch_release(release_of(site), options)
    monkeypatch.undo()
    assert [p.name for p in options.root.iterdir()] == [WORK_FOLDER]
    fetch_release(release_of(site), options)
    check_whole(options.root)
    assert len(site.requests) == 1


def test_a_bad_archive_is_fetched_anew_by_the_next_run(site, options):
    release = release_of(site, checksum=None)
    site.files["pure.tar.gz"] = ARCHIVE[:-50_000]
    with pytest.raises(DownloadError, match="is damaged"):
        fetch_release(release, options)
    site.files["pure.tar.gz"] = ARCHIVE
    fetch_release(release, options)
    check_whole(options.root)


def link(kind, target):
    info = tarfile.TarInfo("data/link")
    info.type, info.linkname = kind, target
    return info


def device(kind):
    info = tarfile.TarInfo("data/device")
    info.type = kind
    return info


def zip_link():
    info = zipfile.ZipInfo("data/link")
    info.create_system = 3
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


BAD_ARCHIVES = {
    "zip: parent": (zip_of([("data/../../out.csv", b"x")]), "leads out"),
    "zip: absolute": (zip_of([("/tmp/out.csv", b"x")]), "leads out"),
    "zip: backslash": (zip_of([("..\\out.csv", b"x")]), "leads out"),
    "zip: drive": (zip_of([("C:out.csv", b"x")]), "leads out"),
    "zip: link": (zip_of([(zip_link(), b"/etc/passwd")]), "link, device"),
    "zip: ratio": (zip_of([("data/zeros.csv", bytes(8 * 2**20))]), "100 times its size"),
    "zip: members": (zip_of([(f"data/{n}", b"") for n in range(1001)]), "more than 1,000 files"),
    "tar: parent": (tar_of([("../out.csv", b"x")]), "leads out"),
    "tar: absolute": (tar_of([("/tmp/out.csv", b"x")]), "leads out"),
    "tar: symbolic link": (tar_of([(link(tarfile.SYMTYPE, "/etc"), b"")]), "link, device"),
    "tar: hard link": (tar_of([(link(tarfile.LNKTYPE, "/etc/passwd"), b"")]), "link, device"),
    "tar: device": (tar_of([(device(tarfile.CHRTYPE), b"")]), "link, device"),
    "tar: pipe": (tar_of([(device(tarfile.FIFOTYPE), b"")]), "link, device"),
    "tar: ratio": (tar_of([("data/zeros.csv", bytes(8 * 2**20))]), "100 times its size"),
    "tar: members": (tar_of([(f"data/{n}", b"") for n in range(1001)]), "more than 1,000 files"),
    "tar: twice": (tar_of([("a.csv", b"x"), ("a.csv", b"y")]), "occurs twice"),
}  # fmt: skip


@pytest.mark.parametrize(("packed", "reason"), BAD_ARCHIVES.values(), ids=BAD_ARCHIVES)
def test_an_archive_that_reaches_too_far_is_refused(tmp_path, packed, reason):
    archive = tmp_path / "archive"
    archive.write_bytes(packed)
    with pytest.raises(UnsafeArchive, match=reason):
        unpack(archive, tmp_path / "in" / "side", 10**9)
    outside = [p for p in tmp_path.rglob("*") if p.is_file() and "side" not in p.parts]
    assert outside == [archive]
    assert sum(p.stat().st_size for p in tmp_path.rglob("side/**/*") if p.is_file()) <= 2**20


def test_a_tar_header_that_claims_gigabytes_is_not_read(tmp_path):
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 2**32
    archive = tmp_path / "pax.tar.gz"
    archive.write_bytes(gzip.compress(header.tobuf() + bytes(4096)))
    with pytest.raises(UnsafeArchive, match="a header claims 4,294,967,296 bytes"):
        unpack(archive, tmp_path / "inside", 10**12)


def test_the_bound_of_a_release_holds_for_what_it_unpacks_to(tmp_path):
    archive = tmp_path / "a.zip"
    archive.write_bytes(zip_of([("a.csv", LOG[:600]), ("b.csv", LOG[:600])]))
    unpack(archive, tmp_path / "enough", 1200)
    with pytest.raises(UnsafeArchive, match="more than its release can hold"):
        unpack(archive, tmp_path / "short", 1199)


def test_an_encrypted_zip_is_refused(tmp_path):
    packed = bytearray(zip_of([("a.csv", b"x")]))
    for signature, offset in [(b"PK\3\4", 6), (b"PK\1\2", 8)]:
        packed[packed.index(signature) + offset] |= 1
    (tmp_path / "a.zip").write_bytes(packed)
    with pytest.raises(UnsafeArchive, match="encrypted"):
        unpack(tmp_path / "a.zip", tmp_path / "inside", 10**6)


@pytest.mark.parametrize("packed", [b"no archive", ARCHIVE[:5000], b""])
def test_a_damaged_archive_is_said_to_be_damaged(tmp_path, packed):
    (tmp_path / "a.tar.gz").write_bytes(packed)
    with pytest.raises(DownloadError, match=r"a\.tar\.gz is damaged"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "inside", 10**6)


def test_personal_data_and_litter_stay_packed(tmp_path):
    names = ["KuaiRec 2.0/data/small_matrix.csv", "KuaiRec 2.0/data/user_features_raw.csv", "__MACOSX/KuaiRec 2.0/._x", "KuaiRec 2.0/.DS_Store"]  # fmt: skip
    (tmp_path / "a.zip").write_bytes(zip_of([(name, b"1") for name in names]))
    unpack(tmp_path / "a.zip", tmp_path / "inside", 10**6)
    files = [p.name for p in (tmp_path / "inside").rglob("*") if p.is_file()]
    assert files == ["small_matrix.csv"]
    assert [p.name for p in (tmp_path / "inside").iterdir()] == ["KuaiRec 2.0"]


def test_a_release_s_folder_has_its_name_whatever_the_archive_calls_it(site, options):
    site.files["v2.zip"] = zip_of([("KuaiSAR_final/rec_inter.csv", b"1"), ("__MACOSX/._a", b"1")])
    release = Release(
        "kuaisar", "full", "KuaiSAR_v2", RemoteFile(f"{site.url}/v2.zip", 10**6), (), ""
    )
    folder = fetch_release(release, options)
    assert folder.name == "KuaiSAR_v2"
    assert sorted(p.name for p in folder.iterdir()) == [MARKER, "rec_inter.csv"]


def test_every_release_has_an_address_a_bound_and_a_licence():
    assert {(r.source, r.variant) for r in RELEASES} == {
        ("kuairand", "pure"), ("kuairand", "1k"), ("kuairand", "27k"),
        ("kuairec", "v2"), ("kuaisar", "small"), ("kuaisar", "full"),
    }  # fmt: skip
    for release in RELEASES:
        for file in (release.archive, *release.extras):
            assert file.url.startswith("https://zenodo.org/record")
            assert file.max_bytes > 0
            assert "raw.csv" not in file.name
        assert release.licence.startswith("CC BY")
    assert len({r.folder for r in RELEASES}) == len(RELEASES)
    checksum = find_release("kuairand", "pure").archive.checksum
    assert checksum == "md5:0820331067a3784d9691136f772b35a7"


def test_the_smallest_release_is_the_default():
    assert [find_release(s).variant for s in ("kuairand", "kuairec", "kuaisar")] == ["pure", "v2", "small"]  # fmt: skip


@pytest.mark.parametrize(
    ("source", "variant", "message"),
    [
        ("weibo", None, "Tianchi.*by hand.*raw_root"),
        ("tiktok", None, "source is one of kuairand, kuairec, kuaisar"),
        ("kuairand", "2k", "variant is one of pure, 1k, 27k"),
    ],
)
def test_what_cannot_be_fetched_is_said_with_what_to_do(source, variant, message):
    with pytest.raises(UnknownRelease, match=message):
        find_release(source, variant)
