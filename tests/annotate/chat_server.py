"""A small OpenAI-compatible server on loopback that answers with the number drawn into its pictures, and injects faults on demand."""

import base64
import contextlib
import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

BITS, CELL_PX = 12, 16


def drawn(number: int) -> NDArray[np.uint8]:
    """A picture of a number: twelve black or white cells, (48, 64, 3)."""
    cells = np.array([number >> bit & 1 for bit in range(BITS)], np.uint8).reshape(3, 4)
    return np.repeat(np.kron(cells * 255, np.ones((CELL_PX, CELL_PX), np.uint8))[:, :, None], 3, axis=2)


def number_in(picture: NDArray[np.uint8]) -> int:
    """The number that a picture shows."""
    means = picture.mean(axis=2).reshape(3, CELL_PX, 4, CELL_PX).mean(axis=(1, 3)).ravel()
    return sum(int(mean > 127) << bit for bit, mean in enumerate(means))


class ChatServer(ThreadingHTTPServer):
    """`script(key, attempt)` returns how a request is answered: `ok` or one of the faults below."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: Callable[[str, int], str] = lambda key, attempt: "ok"
        self.latency_s: Callable[[], float] = lambda: 0.0
        self.key: str | None = None
        self.models: list[str] | None = ["codes"]
        self.attempts: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.headers_seen: list[dict[str, str]] = []
        self.events: list[tuple[float, int]] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores clients that disconnected."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer would wait 40 ms for the head of it to be acknowledged
    server: ChatServer

    def log_message(self, *_: Any) -> None:
        """Logs nothing."""

    def do_GET(self) -> None:
        if self.refused():
            return
        if self.server.models is None:
            self.send(404, b"{}")
        else:
            self.send(200, json.dumps({"data": [{"id": name} for name in self.server.models]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        key = self.headers["X-Request-Id"]
        server = self.server
        with server.lock:
            server.attempts[key] += 1
            attempt = server.attempts[key]
            server.bodies.append(body)
            server.headers_seen.append(dict(self.headers))
            server.events.append((time.monotonic(), 1))
        try:
            if not self.refused():
                time.sleep(server.latency_s())
                self.answer(server.script(key, attempt), body)
        finally:
            with server.lock:
                server.events.append((time.monotonic(), -1))

    def refused(self) -> bool:
        if self.server.key is None or self.headers.get("Authorization") == f"Bearer {self.server.key}":
            return False
        message = f"wrong key: {self.headers.get('Authorization')}"
        self.send(401, json.dumps({"error": {"message": message}}).encode())
        return True

    def answer(self, how: str, body: dict[str, Any]) -> None:
        pictures = [p["image_url"]["url"] for p in body["messages"][0]["content"] if p["type"] == "image_url"]
        numbers = {number_in(self.picture(url)) for url in pictures}
        text = " ".join(f"code {number}" for number in sorted(numbers)) or body["messages"][0]["content"][-1]["text"]
        text = {"empty": "", "repeated": "the " * 2000, "control": f"{text}\x00\x1b[0m\u200b"}.get(how, text)
        answer: dict[str, Any] = {
            "id": "x",
            "choices": [{"message": {"content": text}, "finish_reason": "length" if how == "length" else "stop"}],
            "usage": {"prompt_tokens": 100 * len(pictures), "completion_tokens": len(text.split())},
        }
        match how:
            case "no usage":
                del answer["usage"]
            case "null usage":
                answer["usage"]["prompt_tokens"] = None
            case "huge usage":
                answer["usage"]["prompt_tokens"] = 2**40
            case "refusal":
                answer["choices"][0]["message"] = {"content": None, "refusal": text}
            case "key":
                answer["choices"][0]["message"]["content"] = f"{text} {self.headers.get('Authorization')}"
            case _ if how.startswith("chatcmpl-"):
                answer["id"] = how
        raw = json.dumps(answer).encode()
        match how:
            case "429" | "500" | "503" | "400" | "404" | "403":
                message = {"error": {"message": f"no luck for {self.headers.get('Authorization')}"}}
                self.send(int(how), json.dumps(message).encode(), retry=how == "429")
            case "too long" if len(pictures) > 2:
                self.send(400, b'{"error": {"message": "This model\'s maximum context length is 4096 tokens"}}')
            case "deep":
                self.send(200, b"[" * 100_000)
            case "half":
                self.send(200, raw[: len(raw) // 2])
            case "no choices":
                self.send(200, b'{"choices": []}')
            case "nothing":
                self.send(200, b"")
            case "closed":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
                self.close()
            case "hung up":
                self.close()
            case "slow":
                time.sleep(0.5)
                self.send(200, raw)
            case "not utf-8":
                self.send(200, raw.replace(b"code", b"code\xff\xfe"))
            case "raw control":
                self.send(200, raw.replace(b"code", b"code\x01\n"))
            case _:
                self.send(200, raw)

    @staticmethod
    def picture(url: str) -> NDArray[np.uint8]:
        data = np.frombuffer(base64.b64decode(url.partition("base64,")[2]), np.uint8)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)

    def send(self, status: int, raw: bytes, retry: bool = False) -> None:
        self.send_response(status)
        if retry:
            self.send_header("Retry-After", "0.05")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def close(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)


def running() -> Iterator[ChatServer]:
    """A running server, stopped at the end of the block."""
    with ChatServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def busy_share(events: list[tuple[float, int]], concurrency: int) -> float:
    """Mean number of requests in flight from the first to the last, over the allowed number."""
    events = sorted(events)
    area, now = 0.0, 0
    for (at, change), (then, _) in itertools.pairwise(events):
        now += change
        area += now * (then - at)
    return area / (events[-1][0] - events[0][0]) / concurrency


def chance(seed: int) -> Callable[[str, int], str]:
    """A script of faults: a third of all first attempts, fewer of later ones, independent of the order of requests."""
    faults = ("429", "500", "half", "nothing", "closed", "hung up", "no choices")

    def script(key: str, attempt: int) -> str:
        draw = random.Random(f"{seed}:{key}:{attempt}")
        return draw.choice(faults) if draw.random() < 0.35 else "ok"

    return script
