"""The voting page's server: this machine alone (127.0.0.1), one process, one contest.

GET  /TOKEN/                         the page (curate/voting/page/)
GET  /TOKEN/video/ITEM/left          a video of an item; ids say nothing of contestants (curate/voting/blind.py)
POST /TOKEN/start, /vote, /undo      JSON in, and out what the voter is asked next (`_state`)

Whoever lacks the token gets nothing, and neither does a page of another origin, by whatever name it reaches this address: Host must be this
machine's own, and Origin the same. An answer is taken when it is on the disk, and only then does the reply say so.
"""

import asyncio
import hmac
import re
import signal
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from aiohttp import web

from curate.errors import RushesError, UsageError
from curate.voting import votes
from curate.voting.booth import Booth

PORT = 8384
"""Asked for first, so that an open page finds the server again when it is started anew. Ours."""
MOST_BYTES = 2**16
"""Of a request. Ours: a vote has a few hundred bytes, and the skipped items of a long sitting some thousands."""
PAGE = {
    "index.html": "text/html",
    "style.css": "text/css",
    **dict.fromkeys(("vote.js", "videos.js", "at_server.js", "at_home.js"), "text/javascript"),
}
NOT_PACKED = b'"use strict";\nconst packed = null;\n'
"""`packed.js` where there is a server; a packed folder has its contest there (curate/voting/pack.py)."""
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


def page_file(name: str) -> bytes:
    """A file of the page, as it lies in the package."""
    return files("curate.voting").joinpath("page", name).read_bytes()


def token(booth: Booth) -> str:
    """The secret in the address. It stays the same for a contest: an open page goes on when the server is started anew."""
    return booth.blind.digest("address")


def listen(port: int | None) -> socket.socket:
    """A socket of this machine alone: at `port` (0: any), or by default at PORT if it is free. Raises UsageError for a port that is taken."""
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
            raise web.HTTPNotFound(text="this video is not there any more; skip it")
        return web.FileResponse(path, headers={"Content-Type": VIDEOS.get(path.suffix.lower(), "video/mp4")})

    async def start(voter: str, told: dict[str, Any]) -> None:
        """Nothing but the next question is asked for."""

    async def vote(voter: str, told: dict[str, Any]) -> None:
        if told.get("question") not in votes.QUESTIONS or told.get("choice") not in ("left", "right", "tie"):
            raise UsageError("this is no answer that the page can give")
        booth.vote(voter, str(told.get("item")), told["question"], told["choice"], str(told.get("id", "")))

    async def undo(voter: str, told: dict[str, Any]) -> None:
        booth.undo(voter, str(told.get("id", "")))

    names = "|".join(re.escape(name) for name in served)
    app.router.add_get(rf"/{{token}}/{{name:({names})?}}", page)
    app.router.add_get(r"/{token}/video/{item:[0-9a-f]+}/{side:left|right}", video)
    for act in (start, vote, undo):
        app.router.add_post(f"/{{token}}/{act.__name__}", _answering(booth, act))
    return app


def _answering(booth: Booth, act: Callable[[str, dict[str, Any]], Awaitable[None]]) -> Handler:
    """A handler that does what is asked and replies with what comes next, or with one sentence."""

    async def answer(request: web.Request) -> web.Response:
        try:
            told = await request.json()
        except (ValueError, RecursionError):
            told = None
        try:
            if not isinstance(told, dict):
                raise UsageError("the request is no JSON object")
            voter = votes.voter_name(told.get("voter"))
            await act(voter, told)
            return web.json_response(_state(booth, voter, told.get("skip")))
        except UsageError as error:
            return web.json_response({"error": str(error)}, status=400)
        except (RushesError, OSError) as error:  # a disk that is full, or gone: the page asks again
            return web.json_response({"error": str(error)}, status=507)

    return answer


def _state(booth: Booth, voter: str, skip: Any) -> dict[str, Any]:
    """What the page shows: answers given and possible, and the next task, or null."""
    task = booth.next(voter, {one for one in skip if isinstance(one, str)} if isinstance(skip, list) else frozenset())
    state: dict[str, Any] = {"done": booth.done(voter), "total": booth.total, "task": None}
    if task:
        id = task.item.id
        prompt = booth.contest.prompts[task.item.comparison.prompt]
        state["task"] = {"item": id, "question": task.question, "prompt": prompt}
        state["task"] |= {side: f"video/{id}/{side}" for side in ("left", "right")}
    return state


def _guard(prefix: str) -> Any:
    """Lets nobody in but the page that was opened by the printed address."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if re.sub(r":\d+$", "", host) not in ("127.0.0.1", "localhost"):
            raise web.HTTPForbidden(text="this server answers to 127.0.0.1 and localhost alone")
        if not hmac.compare_digest(request.rel_url.raw_path[: len(prefix)].encode(), prefix.encode()):
            raise web.HTTPForbidden(text="this address lacks its secret part; open the one that `rushes vote` printed")
        if request.method == "POST":
            if request.headers.get("Origin") != f"http://{host}":
                raise web.HTTPForbidden(text="votes come from the page of this server alone")
            if request.content_type != "application/json":
                raise web.HTTPUnsupportedMediaType(text="votes are JSON")
        return await handler(request)

    return guard


async def _dress(request: web.Request, response: web.StreamResponse) -> None:
    """Adds what guards the page, and takes away what would tell videos apart: dates of files, and marks that two items share."""
    for name in ("ETag", "Last-Modified", "Server"):
        response.headers.pop(name, None)
    response.headers.update(HEADERS)
