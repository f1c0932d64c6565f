"""The server of the voting page: only for this machine (127.0.0.1), one process, one contest.

GET  /TOKEN/                         the page (curate/voting/page/)
GET  /TOKEN/video/ITEM/left          a video of an item; ids do not reveal contestants (curate/voting/blind.py)
POST /TOKEN/start, /vote, /undo      JSON in; JSON out with the next question (`_state`)

Requests without the token are rejected, and so are requests of pages of another origin: the Host header must name this machine, and the Origin
header must equal it. The reply to a vote is sent after the vote is on the disk.
"""

import asyncio
import hmac
import re
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from curate.errors import RushesError, UsageError
from curate.voting import votes
from curate.voting.booth import Booth
from curate.voting.page_files import PAGE, page_file

PORT = 8384
"""The first port to try, so that an open page finds a restarted server. Our choice."""
MOST_BYTES = 2**16
"""Maximum size of a request. Our choice: a vote has a few hundred bytes, and the ids of many skipped items some thousands."""
NOT_PACKED = b'"use strict";\nconst packed = null;\n'
"""`packed.js` of the server; in a packed folder it has the contest (curate/voting/pack.py)."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; media-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
VIDEOS = {".webm": "video/webm"}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def token(booth: Booth) -> str:
    """The secret in the address. It is constant for a contest, so an open page resumes when the server restarts."""
    return booth.blind.digest("address")


def listen(port: int | None) -> socket.socket:
    """A socket on 127.0.0.1 at `port` (0: any free one), by default at PORT or any free one. Raises UsageError for a port that is in use."""
    for number in (PORT, 0) if port is None else (port,):
        made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind(("127.0.0.1", number))
            made.listen(128)
            return made
        except OSError as error:
            made.close()
            reason = error.strerror
    raise UsageError(f"port {port} cannot be used ({reason}); --port 0 takes a free one")


def address(booth: Booth, listening: socket.socket) -> str:
    """The address to open in a browser."""
    return f"http://127.0.0.1:{listening.getsockname()[1]}/{token(booth)}/"


async def serve(booth: Booth, listening: socket.socket, stop: asyncio.Event) -> None:
    """Serves until `stop` is set."""
    runner = web.AppRunner(application(booth), access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.SockSite(runner, listening).start()
    await stop.wait()
    await runner.cleanup()


def serve_until_stopped(booth: Booth, listening: socket.socket) -> None:
    """Serves until Ctrl-C or SIGTERM, in the main thread."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(booth, listening, stop)

    asyncio.run(main())


def application(booth: Booth) -> web.Application:
    """The whole server as an aiohttp application."""
    app = web.Application(middlewares=[_guard(f"/{token(booth)}/")], client_max_size=MOST_BYTES)
    app.on_response_prepare.append(_dress)
    served = {name: (kind, page_file(name)) for name, kind in PAGE.items()}
    served["packed.js"] = ("text/javascript", NOT_PACKED)

    async def page(request: web.Request) -> web.Response:
        kind, body = served[request.match_info["name"] or "index.html"]
        return web.Response(body=body, content_type=kind, charset="utf-8")

    async def video(request: web.Request) -> web.StreamResponse:
        item = booth.blind.items.get(request.match_info["item"])
        path: Path | None = None
        if item:
            name = item.left if request.match_info["side"] == "left" else item.right
            path = booth.contest.video(name, item.comparison.seed, item.comparison.prompt)
        if path is None:
            raise web.HTTPNotFound(text="this video is missing; skip it")
        return web.FileResponse(path, headers={"Content-Type": VIDEOS.get(path.suffix.lower(), "video/mp4")})

    async def start(voter: str, body: dict[str, Any]) -> None:
        """Changes nothing; the reply has the next question."""

    async def vote(voter: str, body: dict[str, Any]) -> None:
        if body.get("question") not in votes.QUESTIONS or body.get("choice") not in ("left", "right", "tie"):
            raise UsageError("the question or the choice is unknown; reload the page")
        booth.vote(voter, str(body.get("item")), body["question"], body["choice"], str(body.get("id", "")))

    async def undo(voter: str, body: dict[str, Any]) -> None:
        booth.undo(voter, str(body.get("id", "")))

    names = "|".join(re.escape(name) for name in served)
    app.router.add_get(rf"/{{token}}/{{name:({names})?}}", page)
    app.router.add_get(r"/{token}/video/{item:[0-9a-f]+}/{side:left|right}", video)
    for act in (start, vote, undo):
        app.router.add_post(f"/{{token}}/{act.__name__}", _answering(booth, act))
    return app


def _answering(booth: Booth, act: Callable[[str, dict[str, Any]], Awaitable[None]]) -> Handler:
    """A handler that performs an act and replies with the next state, or with an error of one sentence."""

    async def answer(request: web.Request) -> web.Response:
        try:
            body = await request.json()
        except (ValueError, RecursionError):
            body = None
        try:
            if not isinstance(body, dict):
                raise UsageError("the request is not a JSON object")
            voter = votes.voter_name(body.get("voter"))
            await act(voter, body)
            return web.json_response(_state(booth, voter, body.get("skip")))
        except UsageError as error:
            return web.json_response({"error": str(error)}, status=400)
        except (RushesError, OSError) as error:  # a disk that is full or missing: the page sends it again
            return web.json_response({"error": str(error)}, status=507)

    return answer


def _state(booth: Booth, voter: str, skip: Any) -> dict[str, Any]:
    """The state for the page: number of answers given and possible, and the next task or null."""
    task = booth.next(voter, {one for one in skip if isinstance(one, str)} if isinstance(skip, list) else frozenset())
    state: dict[str, Any] = {"done": booth.done(voter), "total": booth.total, "task": None}
    if task:
        id = task.item.id
        prompt = booth.contest.prompts[task.item.comparison.prompt]
        state["task"] = {"item": id, "question": task.question, "prompt": prompt}
        state["task"] |= {side: f"video/{id}/{side}" for side in ("left", "right")}
    return state


def _guard(prefix: str) -> Any:
    """Rejects all requests but those of the page at the printed address."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if re.sub(r":\d+$", "", host) not in ("127.0.0.1", "localhost"):
            raise web.HTTPForbidden(text="this server accepts only the hosts 127.0.0.1 and localhost")
        if not hmac.compare_digest(request.rel_url.raw_path[: len(prefix)].encode(), prefix.encode()):
            raise web.HTTPForbidden(text="this address has no valid token; open the address that `rushes vote` printed")
        if request.method == "POST":
            if request.headers.get("Origin") != f"http://{host}":
                raise web.HTTPForbidden(text="this server accepts votes only from its own page")
            if request.content_type != "application/json":
                raise web.HTTPUnsupportedMediaType(text="votes must be JSON")
        return await handler(request)

    return guard


async def _dress(request: web.Request, response: web.StreamResponse) -> None:
    """Adds the security headers, and removes headers that could identify videos: dates of files, and ETags, which two items can share."""
    for name in ("ETag", "Last-Modified", "Server"):
        response.headers.pop(name, None)
    response.headers.update(HEADERS)
