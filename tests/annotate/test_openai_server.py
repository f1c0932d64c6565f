"""OpenAIServer against a fault-injecting server on loopback: no caption is lost without an error, none is assigned to another clip."""

import os
import random
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from annotate import OpenAIServer
from annotate.models.chat_client import ChatClient, retry_after_s
from curate.dataset.run import Run
from curate.stages import stage
from tests.annotate import chat_server
from tests.annotate.chat_server import chance, drawn
from tests.project import Rushes
from tests.videos import write_video

KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server():
    yield from chat_server.running()


def asking(server, **options):
    values = {"model": "codes", "base_url": server.url, "backoff_s": 0.01, "timeout_s": 5.0, "frames": 2}
    return OpenAIServer(**(values | options))


def test_two_hundred_clips_get_their_own_captions(server, make_clip):
    """Shuffled, with random latencies, faults and 16 at a time: every caption is a function of its own clip's pixels."""
    server.script, server.latency_s = chance(7), lambda: random.uniform(0, 0.03)
    clips = [make_clip([drawn(17 * i % 4096)] * 2, f"clip{i}") for i in range(200)]
    wanted = {clip.clip_id: f"code {17 * i % 4096}" for i, clip in enumerate(clips)}
    random.Random(0).shuffle(clips)
    rows = stage.apply(asking(server, retries=20), clips, {name: name for name in OpenAIServer.columns})
    assert {row["clip_id"]: row["caption"] for row in rows} == wanted
    assert all(row["error"] is None for row in rows)
    assert sum(server.attempts.values()) > 250  # faults there were


@pytest.mark.parametrize(
    "how", ["429", "500", "503", "half", "nothing", "closed", "hung up", "no choices", "deep", "slow"]
)
def test_temporary_failures_are_retried(server, make_clip, how):
    server.script = lambda key, attempt: how if attempt <= 2 else "ok"
    row = asking(server, timeout_s=0.3)([make_clip([drawn(5)], "a")])[0]
    assert row["caption"] == "code 5"
    assert server.attempts["a"] == 3


@pytest.mark.parametrize(
    ("how", "attempts", "message"),
    [
        ("500", 3, "the server gave no answer in 3 attempts; the last time: status 500"),
        ("half", 3, "the last time: a response that is not a chat completion"),
        ("hung up", 3, "the last time: ServerDisconnectedError"),
        ("slow", 3, "the last time: no answer in time"),
        ("400", 1, "the server refused with status 400: no luck for Bearer ***"),
        ("404", 1, "the server refused with status 404"),
    ],
)
def test_permanent_failure_affects_only_its_clip(server, make_clip, monkeypatch, how, attempts, message):
    monkeypatch.setenv("RUSHES_TEST_KEY", KEY)
    server.script = lambda key, attempt: how if key == "bad" else "ok"
    asks = asking(server, retries=2, timeout_s=0.3, api_key_env="RUSHES_TEST_KEY")
    clips = [make_clip([drawn(1)], "good"), make_clip([drawn(2)], "bad"), make_clip([drawn(3)], "fine")]
    rows = {row["clip_id"]: row for row in stage.apply(asks, clips, {name: name for name in asks.columns})}
    assert message in rows["bad"]["error"]
    assert rows["bad"]["caption"] is None
    assert (rows["good"]["caption"], rows["fine"]["caption"]) == ("code 1", "code 3")
    assert server.attempts == {"good": 1, "bad": attempts, "fine": 1}  # nobody pays twice


@pytest.mark.parametrize(
    ("how", "caption", "finish"),
    [
        ("empty", "", "stop"),
        ("control", "code 9[0m", "stop"),
        ("not utf-8", "code\ufffd\ufffd 9", "stop"),
        ("raw control", "code 9", "stop"),
        ("length", "code 9", "length"),
        ("no usage", "code 9", "stop"),
        ("null usage", "code 9", "stop"),
        ("huge usage", "code 9", "stop"),
        ("refusal", "code 9", "stop"),
    ],
)
def test_malformed_text_is_stored_cleaned(server, make_clip, how, caption, finish):
    server.script = lambda key, attempt: how
    row = asking(server)([make_clip([drawn(9)], "a")])[0]
    assert (row["caption"], row["finish_reason"], row["frames"]) == (caption, finish, 1)
    assert row["prompt_tokens"] == (None if "usage" in how else 100)
    assert server.attempts == {"a": 1}  # nobody pays twice


def test_frames_are_reduced_until_they_fit_the_context(server, make_clip):
    server.script = lambda key, attempt: "too long" if key == "long" else "ok"
    clips = [make_clip([drawn(7)] * 8, "long"), make_clip([drawn(8)] * 8, "a")]
    rows = {row["clip_id"]: row for row in asking(server, frames=8)(clips)}
    assert (rows["long"]["caption"], rows["long"]["frames"], server.attempts["long"]) == ("code 7", 2, 3)
    assert (rows["a"]["caption"], rows["a"]["frames"]) == ("code 8", 8)


def test_response_to_another_request_is_rejected(server, make_clip):
    """vLLM derives its ids from ours. An id that names another clip is an error; an unknown id is not."""
    server.script = lambda key, attempt: {"a": "chatcmpl-b", "b": "chatcmpl-b"}.get(key, "chatcmpl-x")
    clips = [make_clip([drawn(i)], name) for i, name in enumerate("abc")]
    rows = {row["clip_id"]: row for row in asking(server, retries=1)(clips)}
    assert "a response to another request" in rows["a"]["error"]
    assert (rows["b"]["caption"], rows["c"]["caption"]) == ("code 1", "code 2")


def test_caption_never_contains_the_key(server, make_clip, monkeypatch):
    monkeypatch.setenv(
        "RUSHES_TEST_KEY", f"{KEY}\n"
    )  # as `export KEY="$(cat file; echo)"` and secrets in files leave it
    server.key, server.script = KEY, lambda key, attempt: "key"
    assert (
        asking(server, api_key_env="RUSHES_TEST_KEY")([make_clip([drawn(5)], "a")])[0]["caption"] == "code 5 Bearer ***"
    )


def test_ctrl_c_stops_all_requests(server, make_clip, request):
    # A shell's background job ignores Ctrl-C, and so would the tests in it.
    request.addfinalizer(
        partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
    )
    server.latency_s = lambda: 0.2
    asks = asking(server, concurrency=2)
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        asks([make_clip([drawn(i)], f"clip{i}") for i in range(asks.batch_size)])
    sent = sum(server.attempts.values())
    time.sleep(0.5)
    assert sum(server.attempts.values()) == sent < 10


def test_two_thousand_repeated_tokens(server, make_clip):
    server.script = lambda key, attempt: "repeated"
    row = asking(server)([make_clip([drawn(9)], "a")])[0]
    assert row["output_tokens"] == 2000
    assert len(row["caption"]) < 10_000


def test_request_body(server, make_clip):
    clip = make_clip([drawn(i) for i in range(8)], "a", {"motion": 0.5, "caption_coca": "a dog"})
    asking(server, prompt="Motion {motion}.", temperature=0.5, top_p=0.9, extra={"max_tokens": None, "top_k": 5})(
        [clip]
    )
    sent = server.bodies[0]
    assert sent["messages"][0]["content"][-1]["text"] == "Motion 0.5."
    assert {"max_tokens", "stream"} & sent.keys() == set()
    assert (sent["temperature"], sent["top_p"], sent["top_k"], sent["model"]) == (0.5, 0.9, 5, "codes")
    assert 0 <= sent["seed"] < 2**31
    assert [
        chat_server.number_in(chat_server.Handler.picture(p["image_url"]["url"]))
        for p in sent["messages"][0]["content"][:-1]
    ] == [2, 6]
    assert "Authorization" not in server.headers_seen[0]
    text = asking(server, prompt="Merge: {caption_coca}", frames=0)
    assert text.reads == ("caption_coca",)
    assert text([clip])[0]["caption"] == "Merge: a dog"


def test_requests_in_flight_do_not_exceed_concurrency(server, make_clip):
    server.latency_s = lambda: 0.02
    asking(server, concurrency=4)([make_clip([drawn(i)], f"{i}") for i in range(20)])
    now, most = 0, 0
    for _, change in sorted(server.events):
        now += change
        most = max(most, now)
    assert most == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: setattr(s, "models", ["code", "other"]), "has no model 'codes'; did you mean 'code'?"),
        (lambda s: setattr(s, "models", ["x", "y"]), "has no model 'codes'; it has: x, y"),
        (lambda s: setattr(s, "key", "another"), "refuses a request without a key; set api_key_env"),
    ],
)
def test_missing_parts_are_reported_before_the_run(server, change, message):
    asking(server).check()
    change(server)
    with pytest.raises(ValueError, match="the server at http://127") as caught:
        asking(server).check()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_server_without_a_model_list_is_accepted(server):
    server.models = None
    asking(server).check()


def test_missing_malformed_and_refused_keys_are_reported(server, monkeypatch):
    monkeypatch.delenv("RUSHES_TEST_KEY", raising=False)
    asks = asking(server, api_key_env="RUSHES_TEST_KEY")
    with pytest.raises(ValueError, match="RUSHES_TEST_KEY, named by api_key_env, is not set"):
        asks.check()
    for bad in (" ", "sk-sécret", "sk-sec\nret"):
        monkeypatch.setenv("RUSHES_TEST_KEY", bad)
        with pytest.raises(ValueError, match=r"RUSHES_TEST_KEY.* (not set|printable ASCII)") as caught:
            asks.check()
        assert "sk-" not in str(caught.value)
    monkeypatch.setenv("RUSHES_TEST_KEY", KEY)
    server.key = "another"
    with pytest.raises(ValueError, match="refuses the key in RUSHES_TEST_KEY") as caught:
        asks.check()
    assert KEY not in str(caught.value)


def test_unreachable_server_is_reported():
    with pytest.raises(ValueError, match=r"no server answers at http://127\.0\.0\.1:9/v1"):
        OpenAIServer(model="m", base_url="http://127.0.0.1:9/v1").check()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base_url": "127.0.0.1:8000"}, "is not an http address"),
        ({"base_url": "http://me:secret@host/v1"}, "contains a user name or password"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"retries": -1}, "retries"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"frames": -1}, "frames"),
        ({"frames": 1, "every_s": 2.0}, "remove one"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message) as caught:
        OpenAIServer(model="m", **options)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("header", "seconds"), [(None, None), ("1.5", 1.5), ("soon", None)])
def test_retry_after(header, seconds):
    assert retry_after_s(header) == seconds
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT") < 0


def test_loopback_bypasses_proxies(server, make_clip, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert asking(server)([make_clip([drawn(5)], "a")])[0]["caption"] == "code 5"
    assert ChatClient(server.url).ask({}) == {}


def test_key_appears_in_no_file_and_no_output_of_a_run(server, tmp_path: Path, rushes: Rushes, monkeypatch) -> None:
    """Captions on their clips, tokens counted, and the key in no file and no output."""
    server.key = KEY
    monkeypatch.setenv("RUSHES_TEST_KEY", KEY)
    server.script = lambda key, attempt: "400" if attempt == 1 and int(key[0], 16) % 3 == 0 else "ok"
    for number in (3, 300, 3000):
        write_video(tmp_path / f"{number}.mp4", [drawn(number).repeat(2, axis=0).repeat(2, axis=1)] * 50, 25, gop=25)
    options = f"model: codes, base_url: '{server.url}', api_key_env: RUSHES_TEST_KEY, frames: 2, backoff_s: 0.01"
    (tmp_path / "pipeline.yaml").write_text(
        "run: run\nsources: '*.mp4'\nscan: {min_clip_s: 1.0, max_clip_s: 4.0, thumb_short_side_px: 48}\n"
        f"caption:\n  - {{use: annotate.OpenAIServer, name: vlm, {options}}}\n"
    )
    done = rushes("run", cwd=tmp_path)
    assert done.code == 0, done.err
    wide = Run.open(tmp_path / "run").wide()
    for row in wide.itertuples():
        assert row.caption_vlm == f"code {Path(row.uri).stem}" or "no luck for Bearer ***" in row.error
    assert " tokens/s" in done.out
    message = done.out + done.err + rushes("errors", tmp_path / "run").out
    assert KEY not in message
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or KEY.encode() not in file.read_bytes(), file


def test_wrong_server_stops_the_command_before_the_run(server, tmp_path: Path, rushes: Rushes) -> None:
    write_video(tmp_path / "a.mp4", [drawn(1)] * 50, 25, gop=25)
    for url, model, message in (
        ("http://127.0.0.1:9/v1", "codes", "no server answers at http://127.0.0.1:9/v1"),
        (server.url, "cods", "did you mean 'codes'?"),
    ):
        (tmp_path / "pipeline.yaml").write_text(
            f"run: run\nsources: '*.mp4'\ncaption:\n  - {{use: annotate.OpenAIServer, model: {model}, base_url: '{url}'}}\n"
        )
        done = rushes("run", cwd=tmp_path)
        assert done.code == 2
        assert message in done.err
        assert "pipeline.yaml:4: annotate.OpenAIServer: " in done.err
        assert len(done.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()
