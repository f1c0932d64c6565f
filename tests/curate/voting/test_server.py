"""The voting server: access, anonymity of replies, durability of votes; and the command `rushes vote`."""

import json
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from curate.errors import UsageError
from curate.voting import contest, server, votes
from curate.voting.booth import Booth
from tests.curate.voting.contests import CONTESTANTS, make_contest, served
from tests.curate.voting.test_votes import packed_lines, write_lines
from tests.project import Rushes, environment


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("served") / "run"
    make_contest(made)
    return made


@pytest.fixture(scope="module")
def url(run: Path) -> Iterator[str]:
    with served(run / "ablate" / "first") as found:
        yield found


def ask(
    url: str, path: str = "", body: Any = None, method: str | None = None, **headers: str | None
) -> tuple[int, dict[str, str], bytes]:
    """One request as the page makes it, with the given headers replaced. Returns status, headers and body of the reply."""
    parts = urlsplit(url)
    sent: dict[str, str | None] = {"Host": parts.netloc}
    if body is not None:
        sent |= {"Origin": f"http://{parts.netloc}", "Content-Type": "application/json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection = HTTPConnection("127.0.0.1", parts.port or 0, timeout=120)
    where = path if path.startswith("/") else parts.path + path
    connection.putrequest(method or ("GET" if data is None else "POST"), where, skip_host=True)
    for name, value in sent.items():
        if value is not None:
            connection.putheader(name, value)
    if data is not None:
        connection.putheader("Content-Length", str(len(data)))
    connection.endheaders(data)
    reply = connection.getresponse()
    found = reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read()
    connection.close()
    return found


def post(url: str, act: str, voter: str = "Anna", **more: Any) -> dict[str, Any]:
    status, _, body = ask(url, act, {"voter": voter, "id": uuid.uuid4().hex, **more})
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)
    return found


def test_replies_reveal_no_contestant(url: str, run: Path) -> None:
    names, voter = [name.encode() for name in CONTESTANTS] + [b"samples", b"motion"], uuid.uuid4().hex
    state = post(url, "start", voter)
    n = 0
    while task := state["task"]:
        replies = [json.dumps(state).encode()]
        for side in ("left", "right"):
            status, headers, body = ask(url, task[side])
            assert (status, headers["content-type"]) == (200, "video/mp4")
            assert not {"etag", "last-modified"} & set(headers)
            replies += [json.dumps(headers).encode()]
            assert body in [path.read_bytes() for path in run.rglob("*.mp4")]
        assert not [name for name in names if any(name in reply for reply in replies)]
        state = post(url, "vote", voter, item=task["item"], question=task["question"], choice="tie")
        n += 1
    assert (n, state["done"], state["total"]) == (24, 24, 24)


def test_range_requests(url: str) -> None:
    task = post(url, "start", uuid.uuid4().hex)["task"]
    whole = ask(url, task["left"])[2]
    status, headers, body = ask(url, task["left"], Range="bytes=100-199")
    assert (status, body) == (206, whole[100:200])
    assert headers["content-range"] == f"bytes 100-199/{len(whole)}"


def test_every_reply_has_the_security_headers(url: str) -> None:
    for path in ("", "vote.js", "nothing", "/elsewhere"):
        headers = ask(url, path)[1]
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert not [name for name in headers if name.startswith("access-control") or name == "server"]


VOTE = {"voter": "Mallory", "item": "0" * 24, "question": "quality", "choice": "left", "id": "x"}


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        pytest.param("/", {}, None, 403, id="no token"),
        pytest.param("/0123456789abcdef01234567/", {}, None, 403, id="wrong token"),
        pytest.param("/0123456789abcdef01234567/start", {}, VOTE, 403, id="vote with a wrong token"),
        pytest.param("", {"Host": "evil.example"}, None, 403, id="foreign host"),
        pytest.param("", {"Host": "127.0.0.1.evil.example:80"}, None, 403, id="host that looks like ours"),
        pytest.param("", {"Host": None}, None, 400, id="no host"),
        pytest.param("start", {"Host": "evil.example", "Origin": "http://evil.example"}, VOTE, 403, id="rebinding"),
        pytest.param("start", {"Origin": "http://evil.example"}, VOTE, 403, id="foreign origin"),
        pytest.param("start", {"Origin": "null"}, VOTE, 403, id="origin of a file"),
        pytest.param("start", {"Origin": None}, VOTE, 403, id="no origin"),
        pytest.param("start", {"Content-Type": "text/plain"}, VOTE, 415, id="a form's content type"),
        pytest.param("start", {}, b"{", 400, id="no JSON"),
        pytest.param("start", {}, b"[" * 50_000, 400, id="nesting"),
        pytest.param("start", {}, [1], 400, id="no object"),
        pytest.param("start", {}, {"voter": "x" * 10_000}, 400, id="long name"),
        pytest.param("start", {}, {"voter": ["x"]}, 400, id="malformed name"),
        pytest.param("start", {}, {"voter": "x", "pad": "x" * 2**16}, 413, id="large"),
        pytest.param("vote", {}, VOTE, 400, id="unknown item"),
        pytest.param("vote", {}, VOTE | {"item": {}}, 400, id="malformed item"),
        pytest.param("vote", {}, VOTE | {"choice": "undone"}, 400, id="choice that the page does not have"),
        pytest.param("vote", {}, VOTE | {"question": []}, 400, id="malformed question"),
        pytest.param("video/../../contest.json", {}, None, 404, id="path"),
        pytest.param("video/..%2f..%2fcontest.json/left", {}, None, 404, id="encoded path"),
        pytest.param("..%2fcontest.json", {}, None, 404, id="encoded path of the page"),
        pytest.param("video/000000000000000000000000/left", {}, None, 404, id="unknown video"),
        pytest.param("vote.key", {}, None, 404, id="the key"),
        pytest.param("votes.jsonl", {}, None, 404, id="the votes"),
        pytest.param("start", {}, None, 405, id="a vote by GET"),
    ],
)
def test_other_requests_are_rejected(
    url: str, run: Path, path: str, headers: dict[str, str | None], body: Any, status: int
) -> None:
    before = votes.read(run / "ablate" / "first" / votes.FILE)
    found, _, reply = ask(url, path, body, **headers)
    assert (found, b"Traceback" in reply, b"everything" in reply) == (status, False, False)
    assert votes.read(run / "ablate" / "first" / votes.FILE) == before


def test_paths_outside_are_rejected_in_any_encoding(url: str) -> None:
    for trick in ("../contest.json", "%2e%2e/contest.json", "..;/contest.json", "video/%00/left", "./../../"):
        assert ask(url, trick)[0] in (400, 403, 404)


def test_a_tunnel_may_have_another_port(url: str) -> None:
    assert ask(url, Host="localhost:9999")[0] == 200
    body = {"voter": "Anna"}
    assert ask(url, "start", body, Host="localhost:9999", Origin="http://localhost:9999")[0] == 200


def test_a_duplicate_answer_counts_once_and_undo_removes_it(url: str, run: Path) -> None:
    voter = uuid.uuid4().hex
    task, id = post(url, "start", voter)["task"], uuid.uuid4().hex
    answer = {"voter": voter, "id": id, "item": task["item"], "question": "quality", "choice": "right"}
    for _ in range(2):
        state = json.loads(ask(url, "vote", answer)[2])
        assert (state["done"], state["task"]["question"]) == (1, "prompt")
    state = post(url, "undo", voter)
    assert (state["done"], state["task"]) == (0, task)
    mine = [v.choice for v in votes.read(run / "ablate" / "first" / votes.FILE).votes if v.voter == voter]
    assert mine == ["right", "undone"]


def test_a_full_disk_is_an_error_and_no_vote(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    task = post(url, "start", "Zoe")["task"]
    with monkeypatch.context() as patched:
        patched.setattr(votes, "_write", full)
        status, _, body = ask(url, "vote", VOTE | {"voter": "Zoe", "item": task["item"]})
    assert status == 507
    assert "No space left on device; the vote is not recorded" in json.loads(body)["error"]
    assert post(url, "start", "Zoe")["task"] == task


def test_votes_of_another_process_count(url: str, run: Path) -> None:
    folder = run / "ablate" / "first"
    task = post(url, "start", "Kim")["task"]
    other = Booth(contest.read(folder))
    other.vote("Kim", task["item"], "quality", "left", uuid.uuid4().hex)
    assert post(url, "start", "Kim")["task"]["question"] == "prompt"


@contextmanager
def process(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`rushes vote` in its own process, and the address it prints."""
    command = [sys.executable, "-c", "from curate.cli import main; main()", "vote", str(run), "--no-browser", *options]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment(), **pipes) as child:
        try:
            assert child.stdout is not None
            line = child.stdout.readline()
            found = re.fullmatch(r"vote at (http://127\.0\.0\.1:\d+/[0-9a-f]{24}/)\n", line)
            assert found, line + child.stderr.read() if child.stderr else ""
            yield child, found[1]
        finally:
            child.kill()


def test_a_kill_loses_no_confirmed_vote_and_ctrl_c_prints_a_summary(tmp_path: Path) -> None:
    folder = make_contest(tmp_path / "run")
    recorded = 0
    with process(tmp_path / "run", "--port", "0") as (child, url):
        task = post(url, "start")["task"]
        for _ in range(5):
            state = post(url, "vote", item=task["item"], question=task["question"], choice="left")
            task, recorded = state["task"], state["done"]
        child.send_signal(signal.SIGKILL)
        child.wait(20)
    assert recorded == 5 == len(votes.read(folder / votes.FILE).votes)
    port = str(urlsplit(url).port)
    with process(tmp_path / "run", "--port", port) as (child, again):
        assert again == url  # so that an open page finds it
        assert post(url, "start")["task"] == task
        post(url, "vote", item=task["item"], question=task["question"], choice="left")
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=120)
    assert (child.returncode, err) == (0, "")
    assert f"{folder / votes.FILE}: 6 votes of 1 voter" in out
    assert f"rushes report {tmp_path / 'run'}" in out


def test_errors_of_the_command_are_one_sentence(rushes: Rushes, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "pipeline.json").write_text("{}")
    done = rushes("vote", "run", cwd=tmp_path)
    assert (done.code, done.err) == (2, "rushes: run has no ablation yet; make one with  rushes ablate run\n")
    folder = make_contest(tmp_path / "run", prompts=["a"])
    (folder / "samples" / "everything-s0" / "00.mp4").unlink()
    (folder / "samples" / "motion-25-s0" / "00.mp4").unlink()
    done = rushes("vote", "run", cwd=tmp_path)
    assert done.code == 2
    assert "has no two videos to compare yet; continue the ablation:  rushes ablate run" in done.err
    done = rushes("vote", "run", "--import", "nothing.jsonl", cwd=tmp_path)
    assert (done.code, done.err) == (2, "rushes: nothing.jsonl cannot be read: No such file or directory\n")


def test_import_of_files(rushes: Rushes, tmp_path: Path) -> None:
    folder = make_contest(tmp_path / "run")
    files = [write_lines(tmp_path / f"{voter}.jsonl", packed_lines(folder, voter)) for voter in ("Anna", "Ben")]
    files[1].write_bytes(files[1].read_bytes()[:-9])
    options = [part for file in files for part in ("--import", file.name)]
    done = rushes("vote", "run", *options, cwd=tmp_path)
    assert done.code == 0, done.err
    first, second, third, *opinions, last = done.out.splitlines()
    assert [first, second] == ["Anna.jsonl: 12 new votes", "Ben.jsonl: 11 new votes"]
    assert third == f"{folder / votes.FILE}: 23 votes of 2 voters"
    assert opinions
    assert all(": no significant difference yet" in line and "Ben: always left" in line for line in opinions)
    assert last == "see them in the report:  rushes report run"
    assert done.err.startswith("rushes: Ben.jsonl, line 12 is incomplete and is skipped")
    done = rushes("vote", "run", *options[:2], cwd=tmp_path)
    assert done.out.startswith("Anna.jsonl: 0 new votes, 12 known already\n")


def test_packing_refuses_a_folder_with_other_files(rushes: Rushes, run: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"x")
    done = rushes("vote", run, "--static", "photos", cwd=tmp_path)
    assert (done.code, [*(tmp_path / "photos").iterdir()]) == (2, [tmp_path / "photos" / "one.jpg"])
    assert "'photos' exists and is not a packed contest; give a new or an empty folder" in done.err
    for _ in range(2):
        done = rushes("vote", run, "--static", "packed", cwd=tmp_path)
        assert done.code == 0, done.err
        assert done.out.startswith("packed/index.html: 12 comparisons, ")
    contents = [path.read_bytes() for path in (tmp_path / "packed").iterdir() if path.is_file()]
    contents += [path.name.encode() for path in (tmp_path / "packed").rglob("*")]
    assert not [name for name in CONTESTANTS if any(name.encode() in content for content in contents)]


def test_a_port_in_use_is_an_error_and_the_default_port_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    with server.listen(0) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} cannot be used .*; --port 0 takes a free one"):
            server.listen(port)
        monkeypatch.setattr(server, "PORT", port)
        with server.listen(None) as other:
            assert other.getsockname()[0] == "127.0.0.1"
            assert other.getsockname()[1] != port
