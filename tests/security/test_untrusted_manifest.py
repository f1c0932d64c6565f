"""A manifest with files of the machine, the internal network, or chained protocols (curate/scan/uri_policy.py)."""

import json
from pathlib import Path

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.config import pipeline_file
from curate.config.config import SourcesConfig
from curate.errors import UsageError
from curate.scan import sources


def discover(folder: Path, *uris: str, **rules: object) -> list[str]:
    """The sources found by a manifest of these uris in `folder`."""
    pd.DataFrame({"uri": uris}).to_csv(folder / "list.csv", index=False)
    return list(sources.discover(SourcesConfig.model_validate({"from": "list.csv", **rules}), folder))


@pytest.mark.parametrize(
    "uri",
    [
        "a.mp4",
        "../a.mp4",
        "/data/a.mp4",
        "a file: with marks #?%20.mp4",
        "concat:a.mp4|b.mp4",
        "s3://bucket/a.mp4",
        "gs://bucket/a.mp4",
        "abfs://container@account.dfs.core.windows.net/a.mp4",
        "hf://datasets/owner/name/a.mp4",
        "https://example.org/a.mp4?version=2",
        "https://93.184.216.34/a.mp4",
        "https://[2606:2800:220:1::1]/a.mp4",
    ],
)
def test_what_a_manifest_may_name(uri: str, tmp_path: Path) -> None:
    assert len(discover(tmp_path, uri)) == 1


@pytest.mark.parametrize(
    ("uri", "needs"),
    [
        ("file:///etc/passwd", "file"),
        ("FILE:///etc/passwd", "file"),
        ("local:///etc/passwd", "local"),
        ("ssh://host/a.mp4", "ssh"),
        ("sftp://host/a.mp4", "sftp"),
        ("smb://host/a.mp4", "smb"),
        ("ftp://host/a.mp4", "ftp"),
        ("github://main/a.mp4", "github"),
        ("reference://x", "reference"),
        ("zip://a.mp4::https://example.org/a.zip", "zip"),
        ("simplecache::s3://bucket/a.mp4", "simplecache"),
        ("filecache::file:///etc/passwd", "filecache"),
        ("s3://bucket/a.mp4::file:///etc/passwd", "file"),
        ("/tmp/x::/etc/passwd", "/tmp/x"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
        ("http://2852039166/", "2852039166"),
        ("http://0xa9fea9fe/", "0xa9fea9fe"),
        ("http://0251.0376.0251.0376/", "0251.0376.0251.0376"),
        ("http://127.1/", "127.1"),
        ("http://0/", "0"),
        ("https://user@127.0.0.1:8265/api", "127.0.0.1"),
        ("https://example.org@127.0.0.1/", "127.0.0.1"),
        ("http://%31%32%37.0.0.1/", "127.0.0.1"),
        ("http://①②⑦.0.0.1/", "127.0.0.1"),
        ("http://[::1]/", "::1"),
        ("http://[fe80::1%25eth0]/", "fe80::1%eth0"),
        ("http://[::ffff:169.254.169.254]/", "::ffff:169.254.169.254"),
        ("http://[64:ff9b::a9fe:a9fe]/", "64:ff9b::a9fe:a9fe"),
        ("http://[2002:7f00:1::]/", "2002:7f00:1::"),
        ("https://10.0.0.5/a.mp4", "10.0.0.5"),
        ("https://192.168.1.1/a.mp4", "192.168.1.1"),
        ("http://localhost/a.mp4", "localhost"),
        ("http://LOCALHOST./a.mp4", "localhost"),
        ("http://metadata.google.internal/", "metadata.google.internal"),
        ("http://intranet/a.mp4", "intranet"),
        ("http://224.0.0.1/", "224.0.0.1"),
    ],
)
def test_what_a_manifest_may_name_only_when_it_is_allowed(uri: str, needs: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^sources: row 1 of the manifest 'list.csv' names .* allow it with") as error:
        discover(tmp_path, uri)
    assert str(error.value).endswith(f"allow: [{needs}]}}")
    if needs != "/tmp/x":
        assert len(discover(tmp_path, uri, allow=[needs, "file"])) == 1


@pytest.mark.parametrize("uri", ["http:///a", "://x", "http://a b/", "https://good.org\\@127.0.0.1/", "http://[::1/"])
def test_a_malformed_address(uri: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^sources: row 1 of the manifest"):
        discover(tmp_path, uri)


def test_a_manifest_on_object_storage_that_names_local_files(tmp_path: Path) -> None:
    for uri in ("/etc/passwd", "file:///etc/passwd"):
        with fsspec.open("memory://lists/list.csv", "w") as file:
            file.write(f"uri\n{uri}\n")
        with pytest.raises(UsageError, match="row 1 of the manifest"):
            sources.discover(SourcesConfig.model_validate("memory://lists/list.csv"), tmp_path)


@pytest.mark.parametrize(
    "uri",
    [
        "../secret.mp4",
        "in/../../secret.mp4",
        "in/link.mp4",
        "in/folder/secret.mp4",
        "/etc/passwd",
        "file:///etc/passwd",
        "file://%2e%2e/secret.mp4",
        "https://example.org/a.mp4",
        "s3://bucket/a.mp4",
        "in/good.mp4::/etc/passwd",
    ],
)
def test_leaving_the_root(uri: str, tmp_path: Path) -> None:
    (tmp_path / "root" / "in").mkdir(parents=True)
    (tmp_path / "secret.mp4").touch()
    (tmp_path / "root" / "in" / "good.mp4").touch()
    (tmp_path / "root" / "in" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (tmp_path / "root" / "in" / "folder").symlink_to(tmp_path)
    root = tmp_path / "root"
    for given in (".", str(root)):
        assert discover(root, "in/good.mp4", root=given) == [str(root / "in" / "good.mp4")]
        with pytest.raises(UsageError, match=r"^sources: "):
            discover(root, uri, root=given, allow=["file", "", "in/good.mp4", "/etc/passwd"])


def test_a_folder_with_a_link_out_of_the_root(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret.mp4").touch()
    (tmp_path / "root" / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    for given in ("root", "root/*.mp4", "root/link.mp4"):
        assert sources.discover(SourcesConfig.model_validate(given), tmp_path)
        with pytest.raises(UsageError, match=r"is outside sources.root"):
            sources.discover(SourcesConfig.model_validate({"from": given, "root": "root"}), tmp_path)


@pytest.mark.parametrize(
    "uri", ["s3://bucket/other/a.mp4", "s3://bucket/clips/../x", "s3://bucket/clips/%2e%2e/x", "s3://bucket/clipsx"]
)
def test_leaving_a_root_on_object_storage(uri: str, tmp_path: Path) -> None:
    assert discover(tmp_path, "s3://bucket/clips/a.mp4", root="s3://bucket/clips/")
    with pytest.raises(UsageError, match=r"is outside sources.root"):
        discover(tmp_path, uri, root="s3://bucket/clips/")


@pytest.mark.parametrize(
    "uri",
    [
        "https://user:s3cret@example.org/a.mp4",
        "https://example.org/a.mp4?X-Amz-Signature=s3cret",
        "https://account.blob.core.windows.net/c/a.mp4?sv=1&sig=s3cret",
        "https://example.org/a.mp4?access_token=s3cret",
    ],
)
def test_an_address_with_a_secret_in_it(uri: str, tmp_path: Path) -> None:
    for given in ({"from": uri}, {"from": "list.csv"}):
        pd.DataFrame({"uri": [uri]}).to_csv(tmp_path / "list.csv", index=False)
        with pytest.raises(UsageError, match="names an address with a password or a signature") as error:
            sources.discover(SourcesConfig.model_validate(given), tmp_path)
        assert "s3cret" not in str(error.value)
    assert discover(tmp_path, uri, allow=["credentials"]) == [uri]


def test_a_manifest_of_billions_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MANIFEST_ROWS", 9)
    pq.write_table(pa.table({"uri": ["a.mp4"] * 10}), tmp_path / "list.parquet")
    with pytest.raises(UsageError, match="has 10 rows, more than 9"):
        sources.discover(SourcesConfig.model_validate("list.parquet"), tmp_path)


def test_rules_in_the_file_hold_for_sources_that_are_typed(tmp_path: Path) -> None:
    (tmp_path / "pipeline.yaml").write_text("sources: {from: a, root: /data, allow: [sftp]}\n")
    loaded = pipeline_file.load(tmp_path / "pipeline.yaml", replace={"sources": ["b"]}).config.sources
    assert (loaded.from_, loaded.root, loaded.allow) == (["b"], "/data", ["sftp"])
    assert json.loads(json.dumps(pipeline_file.load(tmp_path / "pipeline.yaml").resolved))["sources"]["from"] == "a"
