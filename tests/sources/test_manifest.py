import json
import os

from reelrank.sources.manifest import Manifest, RawFile


def test_a_manifest_survives_json_and_notices_changed_files(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("x\n1\n")
    manifest = Manifest("s", "v", "world", tmp_path, (RawFile("log", path, 4, "differs"),), "CC0")
    assert Manifest.from_dict(json.loads(json.dumps(manifest.to_dict()))) == manifest
    assert manifest.files_of("log") == manifest.files
    assert manifest.files_of("other") == ()
    before = manifest.fingerprint
    assert before == manifest.fingerprint
    os.utime(path, ns=(1, 1))
    assert manifest.fingerprint != before
