"""A file that exploits its decoder: actions that the sandbox's child cannot do (curate/sandbox/confine.py, curate/sandbox/answers.py)."""

import os
import pickle
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from curate.sandbox import answers, confine
from curate.sandbox.sandbox import Sandbox, SandboxError
from curate.video.letterbox import Box
from tests.security import attacks


@pytest.fixture(scope="module")
def child() -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        with Sandbox(memory_mb=512) as box:
            yield box


SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "s3cret",
    "AWS_SESSION_TOKEN": "s3cret",
    "HF_TOKEN": "s3cret",
    "OPENAI_API_KEY": "s3cret",
    "RAY_AUTH_TOKEN": "s3cret",
    "MY_PASSWORD": "s3cret",
    "https_proxy": "http://me:s3cret@proxy:3128",
}


def needs(child: Sandbox, what: str) -> None:
    if what not in child.call(confine.protections, wall_s=30):
        reason = f"this kernel does not have what keeps decoders from it ({what})"
        pytest.skip(reason)


def test_writing_outside_the_scratch_directory(child: Sandbox, tmp_path: Path) -> None:
    needs(child, "files")
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    found = child.call(attacks.touch_files, str(tmp_path), str(victim), wall_s=30)
    assert "done" not in found.values(), found
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert victim.read_text() == "untouched"
    assert child.call(attacks.use_scratch, wall_s=30) == "a temporary file"


def test_the_scratch_directory_goes_with_the_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Sandbox(memory_mb=512) as box:
        assert box.call(attacks.use_scratch, wall_s=30) == "a temporary file"
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_reaching_the_network(child: Sandbox) -> None:
    needs(child, "sockets")
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        found = child.call(attacks.reach_out, server.getsockname()[1], wall_s=30)
        assert set(found.values()) == {"PermissionError"}, found
        with pytest.raises(TimeoutError):
            server.accept()


def test_a_source_on_object_storage_keeps_the_network_and_its_keys_and_nothing_else(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, Sandbox(memory_mb=512) as box:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        with socket.create_server(("127.0.0.1", 0)) as server:
            assert box.call(attacks.connect, server.getsockname()[1], wall_s=30, online=True) == "done"
            assert box.call(attacks.environment, wall_s=30, online=True)["AWS_SECRET_ACCESS_KEY"] == "s3cret"
            if "files" in box.call(confine.protections, wall_s=30, online=True):
                (tmp_path / "victim").write_text("untouched")
                arguments = (str(tmp_path), str(tmp_path / "victim"))
                found = box.call(attacks.touch_files, *arguments, wall_s=30, online=True)
                assert "done" not in found.values()
            if "sockets" in box.call(confine.protections, wall_s=30):
                assert box.call(attacks.connect, server.getsockname()[1], wall_s=30) == "PermissionError", "a new child"


def test_reading_secrets_from_the_environment(child: Sandbox) -> None:
    found = child.call(attacks.environment, wall_s=30)
    assert not SECRETS.keys() & found.keys()
    assert "s3cret" not in str(found)
    assert found["PATH"] == os.environ["PATH"]


def test_reading_the_parents_environment_and_memory_and_stopping_it(child: Sandbox) -> None:
    needs(child, "files")
    found = child.call(attacks.look_into_the_parent, wall_s=30)
    assert (found["environment"], found["memory"]) == ("PermissionError", "PermissionError")
    if "signals" in child.call(confine.protections, wall_s=30):
        assert found["signal"] == "PermissionError"


def test_answering_with_a_pickle_that_runs_code(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    with Sandbox(memory_mb=512, attempts=1) as box, pytest.raises(SandboxError, match="a malformed answer"):
        box.call(attacks.answer_with_a_pickle, str(canary), wall_s=30)
    assert not canary.exists()


def test_answering_with_an_object(child: Sandbox) -> None:
    with pytest.raises(SandboxError, match=r"cannot return a tests\.security\.attacks\.Bomb"):
        child.call(attacks.return_code, wall_s=30)


def test_answering_with_more_than_there_is_memory() -> None:
    with Sandbox(memory_mb=512, attempts=1) as box, pytest.raises(SandboxError):
        box.call(attacks.announce, 2**40, wall_s=30)


def test_answering_with_escape_codes_for_the_terminal(child: Sandbox) -> None:
    with pytest.raises(SandboxError) as error:
        child.call(attacks.complain_with_escape_codes, wall_s=30)
    assert "not a video" in str(error.value)
    assert str(error.value).isprintable()


def forged(head: str, rest: bytes = b"") -> bytes:
    return struct.pack(">Q", len(head)) + head.encode() + rest


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(pickle.dumps(("returned", attacks.Bomb("canary"))), id="a pickle"),
        pytest.param(forged('{"b":[0,99]}', b"x"), id="bytes beyond the end"),
        pytest.param(forged('{"b":[-1,1]}', b"x"), id="bytes before the start"),
        pytest.param(forged('{"b":["0",1]}', b"x"), id="a place that is no number"),
        pytest.param(forged('{"a":["|O",[1],0,8]}', bytes(8)), id="an array of objects"),
        pytest.param(forged('{"a":["f8,O",[1],0,16]}', bytes(16)), id="an array of records"),
        pytest.param(forged('{"a":["<f8",[9999999999],0,8]}', bytes(8)), id="a shape that does not fit"),
        pytest.param(forged('{"a":["<f8",[-1,-1],0,8]}', bytes(8)), id="an invalid shape"),
        pytest.param(forged('{"r":["Popen",[["true"]]]}'), id="a class of others"),
        pytest.param(forged('{"r":["../os.system",["true"]]}'), id="a module by path"),
        pytest.param(forged('{"r":["Cut",[]]}'), id="a record without fields"),
        pytest.param(forged('{"x":1}'), id="an unknown kind"),
        pytest.param(forged('{"b":[0,1],"t":[]}', b"x"), id="two kinds"),
        pytest.param(forged("[" * 100_000), id="nested too deeply"),
        pytest.param(forged("9" * 10_000), id="a number too long"),
        pytest.param(struct.pack(">Q", 2**63), id="a head that is not there"),
    ],
)
def test_a_forged_answer(message: bytes) -> None:
    with pytest.raises(answers.AnswerError):
        answers.decode(message)


def test_an_answer_is_decoded_to_the_same_value() -> None:
    value = {
        "a": [1, -2.5, None, True, "é\ud800", float("inf")],
        ("t", 1): (b"\x00bytes", [b"", {}], Box(1, 2, 3, 4)),
        2**80: {"r": "no record"},
    }
    found = answers.decode(answers.encode(value))
    assert found == value
    assert type(found["t", 1][2]) is Box
    arrays = [np.arange(6, dtype=np.uint8).reshape(2, 3), np.zeros((0, 4), np.float32), np.array([1.5, np.nan])]
    for given, back in zip(arrays, answers.decode(answers.encode(arrays)), strict=True):
        np.testing.assert_array_equal(given, back)
        assert (given.dtype, back.flags.writeable) == (back.dtype, True)
    assert type(answers.decode(answers.encode(np.float32(0.1)))) is np.float32
