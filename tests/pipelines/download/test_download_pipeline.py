"""`kedro run --pipelines download`: the parameters reach the server, the files land where ingestion looks."""

import io
import zipfile

import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from support.file_server import serve

from reelrank.pipelines.download import create_pipeline
from reelrank.sources.download import DownloadError, DownloadOptions
from reelrank.sources.releases import UnknownRelease


@pytest.fixture
def site():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("KuaiSAR_final/rec_inter.csv", "user_id\n1\n")
    with serve() as opened:
        opened.files = {"KuaiSAR.zip": packed.getvalue(), "KuaiRand-Pure.tar.gz": b"no release"}
        yield opened


def test_the_node_fetches_the_source_s_smallest_release(site, tmp_path):
    options = DownloadOptions(source="kuaisar", root=tmp_path, mirror=site.url)
    catalog = DataCatalog({"params:download": MemoryDataset(options)})
    SequentialRunner().run(create_pipeline(), catalog)
    assert (tmp_path / "KuaiSAR-small/rec_inter.csv").read_text() == "user_id\n1\n"


def test_the_command_s_parameters_name_the_release_and_its_place(run, site, tmp_path, capsys):
    params = {"source": "kuaisar", "variant": "small", "download": {"mirror": site.url}}
    run(tmp_path, pipeline="download", params=params)
    assert (tmp_path / "01_raw/KuaiSAR-small/rec_inter.csv").is_file()
    assert "CC BY-NC-SA 4.0" in capsys.readouterr().out
    elsewhere = tmp_path / "elsewhere"
    run(tmp_path, pipeline="download", params=params | {"raw_root": str(elsewhere)})
    assert (elsewhere / "KuaiSAR-small/rec_inter.csv").is_file()


def test_what_is_not_the_published_file_is_refused(run, site, tmp_path):
    with pytest.raises(
        DownloadError, match=r"KuaiRand-Pure\.tar\.gz: what came is not the published"
    ):
        run(tmp_path, pipeline="download", params={"download": {"mirror": site.url}})


def test_a_source_without_a_public_address_says_where_to_get_it(run, tmp_path):
    with pytest.raises(UnknownRelease, match="by hand"):
        run(tmp_path, pipeline="download", params={"source": "weibo"})


def test_a_plain_run_downloads_nothing(project):
    from kedro.framework.project import pipelines

    names = {node.name for node in pipelines["__default__"].nodes}
    assert not names & {node.name for node in pipelines["download"].nodes}
