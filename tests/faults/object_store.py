"""Object storage that fails: an S3-compatible server on loopback, and a proxy in front of it that injects outages."""

import contextlib
import http.client
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.servers import s3_server

BUCKET = "rushes"


class Bucket:
    """The server (moto) and the proxy. `outage` sets what happens to the next requests."""

    def __init__(self, folder: Path) -> None:
        self._server = contextlib.ExitStack()
        self.port, _ = self._server.enter_context(s3_server(folder))
        self.how, self.left, self.only = "", 0, ("PUT", "GET", "HEAD", "DELETE", "POST")
        self.disturbed = 0
        self._lock = threading.Lock()
        self.proxy = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.proxy.daemon_threads = True
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
        keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
        self.env = keys | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy.server_address[1]}"}
        """Environment variables that point to the proxy."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("PUT", f"/{BUCKET}")
        assert connection.getresponse().status == 200
        connection.close()

    def outage(self, how: str, requests: int, only: tuple[str, ...] = ("PUT", "GET", "HEAD", "DELETE", "POST")) -> None:
        """The next requests of these methods are answered with 503 (`503`), delayed (`late`), or executed without an answer (`lost`)."""
        with self._lock:
            self.how, self.left, self.only, self.disturbed = how, requests, only, 0

    def next(self, method: str) -> str:
        with self._lock:
            if self.left <= 0 or method not in self.only:
                return ""
            self.left -= 1
            self.disturbed += 1
            return self.how

    def close(self) -> None:
        self.proxy.shutdown()
        self.proxy.server_close()
        self._server.close()


def _handler(bucket: Bucket) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
                pieces = []
                while size := int(self.rfile.readline().split(b";")[0], 16):
                    pieces.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(pieces)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _do(self) -> None:
            body = self._body()
            how = bucket.next(self.command)
            if how == "503":
                text = b"<?xml version='1.0'?><Error><Code>ServiceUnavailable</Code><Message>Please try again.</Message></Error>"
                headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
                self._answer(503, headers, text if self.command != "HEAD" else b"")
                return
            if how == "late":
                time.sleep(20)  # longer than the client waits for an answer
                self.close_connection = True
                return
            inner = http.client.HTTPConnection("127.0.0.1", bucket.port, timeout=60)
            headers = {
                k: v for k, v in self.headers.items() if k.lower() not in ("transfer-encoding", "connection", "expect")
            }
            headers["Content-Length"] = str(len(body))
            inner.request(self.command, self.path, body, headers)
            answer = inner.getresponse()
            data = answer.read()
            received = answer.getheaders()
            inner.close()
            if how == "lost":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if self.command != "HEAD" and not any(k.lower() == "content-length" for k, _ in received):
                received.append(("Content-Length", str(len(data))))
            self._answer(answer.status, received, data)

    for method in ("GET", "PUT", "POST", "DELETE", "HEAD"):
        setattr(Handler, f"do_{method}", Handler._do)
    return Handler


def reach(bucket: Bucket) -> None:
    """Points this process to the bucket."""
    os.environ.update(bucket.env)
