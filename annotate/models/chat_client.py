"""Client of an OpenAI-compatible server: many requests, a limited number in flight, with retries.

Retried, after a pause that doubles (with jitter; at least as long as the server's Retry-After): status 408, 409, 425, 429 and
5xx, a connection that fails or closes early, a timeout, a response that is not the expected JSON. Any other refusal is not
retried. A request without an answer after all retries returns one sentence with the reason; the others are not affected. A
request that is too long for the model is shortened by the caller (`shorten`) and sent again.

A response is returned under the key of its request. The key is also sent as `X-Request-Id`; a response that names another
request's key is discarded and retried. The API key is read from the environment and sent only in the request's header; it is
removed from everything a server returns, answers included.
"""

import asyncio
import concurrent.futures
import contextlib
import difflib
import json
import os
import random
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import aiohttp

RETRIED = {408, 409, 425, 429}
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
TOO_LONG = re.compile(r"context|too (long|large|many)|at most \d+ (image|video)", re.IGNORECASE)
"""What servers write, with 400, 413 or 422, if a request does not fit the model."""
COUNTS = range(2**31)
"""Valid token counts: those that fit their column."""
T = TypeVar("T")
Body = Callable[[], Mapping[str, Any]]


class _TooLongError(Exception):
    """The request is longer than the model accepts."""


class _RetryError(Exception):
    """There is no valid answer, for a reason that may be temporary; `wait_s` is the pause that the server requests."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Reply:
    """The text a server generated; token counts are None if it does not report them."""

    text: str
    prompt_tokens: int | None
    output_tokens: int | None
    finish_reason: str
    seconds: float


@dataclass(frozen=True)
class _Batch:
    """The requests of one call, and their shared session."""

    session: "aiohttp.ClientSession"
    gate: asyncio.Semaphore
    bodies: Mapping[str, Body]
    shorten: Callable[[str], bool]


@dataclass(frozen=True)
class ChatClient:
    """A server, with the limits of its requests.

    Attributes:
        base_url: The address up to and with `/v1`.
        concurrency: Maximum requests in flight.
        timeout_s: Maximum seconds of one attempt.
        retries: Attempts after the first.
        backoff_s: Pause before the second attempt; it doubles each time, up to a minute.
        api_key_env: Name of the environment variable with the API key; None sends no key.
    """

    base_url: str
    concurrency: int = 16
    timeout_s: float = 120.0
    retries: int = 6
    backoff_s: float = 0.5
    api_key_env: str | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(
                f"base_url '{self.base_url}' is not an http address; write one such as http://127.0.0.1:8000/v1"
            )
        if parts.username or parts.password:
            raise ValueError(
                "base_url contains a user name or password; set api_key_env to the name of an environment variable instead"
            )
        for name, least in (("concurrency", 1), ("retries", 0), ("backoff_s", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s is {self.timeout_s}; it must be above 0")

    def ask(
        self, bodies: Mapping[str, Body], shorten: Callable[[str], bool] = lambda key: False
    ) -> dict[str, Reply | str]:
        """Sends all requests and waits for the answers.

        Args:
            bodies: Key to a function that returns the body of a chat completion. It is called when the request is sent, which
                limits the number of pictures in memory.
            shorten: Called with the key of a request that is too long for the model. It shortens the next body and returns
                True, or returns False if that is not possible.

        Returns:
            Key to the reply, or to one sentence with the reason why there is no reply.
        """
        return _run(self._ask(bodies, shorten)) if bodies else {}

    def check(self, model: str) -> None:
        """Raises ValueError if the server does not answer, refuses the key, or lists its models and `model` is not among them."""
        if self.api_key_env and not self._key():
            raise ValueError(
                f"the environment variable {self.api_key_env}, named by api_key_env, is not set; set it to the API key"
            )
        if not re.fullmatch(r"[!-~]*", self._key()):
            raise ValueError(
                f"the environment variable {self.api_key_env} must hold the API key in printable ASCII; it contains other characters"
            )
        found = _run(self._models())
        if found is not None and model not in found:
            near = difflib.get_close_matches(model, found, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(sorted(found)[:10]) or 'none'}"
            raise ValueError(f"the server at {self.base_url} has no model '{model}'; {hint}")

    def _key(self) -> str:
        """The API key without surrounding white space; empty if it is not set."""
        return os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""

    def _without_key(self, raw: bytes) -> bytes:
        """Bytes from a server, with the API key replaced by ***."""
        key = self._key().encode()
        return raw.replace(key, b"***") if key else raw

    def _session(self) -> "aiohttp.ClientSession":
        import aiohttp

        key = self._key()
        return aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=aiohttp.ClientTimeout(total=self.timeout_s),
            connector=aiohttp.TCPConnector(limit=self.concurrency),
            trust_env=urlsplit(self.base_url).hostname not in LOOPBACK,  # proxies
        )

    async def _models(self) -> list[str] | None:
        """Names of the server's models; None if it does not list them."""
        import aiohttp

        url = f"{self.base_url.rstrip('/')}/models"
        try:
            async with self._session() as session, session.get(url) as response:
                status, raw = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            reason = f"no server answers at {self.base_url} ({self._reason(error)}); start it, or correct base_url"
            raise ValueError(reason) from None
        if status in (401, 403):
            how = f"the key in {self.api_key_env}" if self.api_key_env else "a request without a key; set api_key_env"
            raise ValueError(f"the server at {self.base_url} refuses {how} ({status})")
        try:
            return [str(entry["id"]) for entry in json.loads(raw)["data"]] if status == 200 else None
        except (ValueError, KeyError, TypeError):
            return None

    async def _ask(self, bodies: Mapping[str, Body], shorten: Callable[[str], bool]) -> dict[str, Reply | str]:
        async with self._session() as session:
            batch = _Batch(session, asyncio.Semaphore(self.concurrency), bodies, shorten)
            replies = await asyncio.gather(*(self._fitting(batch, key) for key in bodies))
        return dict(zip(bodies, replies, strict=True))

    async def _fitting(self, batch: "_Batch", key: str) -> Reply | str:
        """One request, shortened until the model accepts it."""
        while True:
            try:
                return await self._with_retries(batch, key)
            except _TooLongError as error:
                if not batch.shorten(key):
                    return str(error)

    async def _with_retries(self, batch: "_Batch", key: str) -> Reply | str:
        """One request, retried up to the limit. During a pause its slot is free for another request."""
        import aiohttp

        taken_s, reason = 0.0, ""
        for attempt in range(self.retries + 1):
            wait_s = None
            async with batch.gate:
                began = time.monotonic()
                try:
                    return await self._once(batch, key, began - taken_s)
                except _RetryError as error:
                    reason, wait_s = str(error), error.wait_s
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    reason = self._reason(error)
                except ValueError as error:
                    return str(error)
                taken_s += time.monotonic() - began
            if attempt < self.retries:
                pause_s = min(60.0, self.backoff_s * 2**attempt) * random.uniform(0.5, 1.5)
                await asyncio.sleep(max(pause_s, min(wait_s or 0.0, self.timeout_s)))
        return f"the server gave no answer in {self.retries + 1} attempts; the last time: {reason}"

    async def _once(self, batch: "_Batch", key: str, began: float) -> Reply:
        """One attempt. Raises _RetryError, _TooLongError, a connection error, or ValueError if retrying would not help."""
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        async with batch.session.post(url, json=batch.bodies[key](), headers={"X-Request-Id": key}) as response:
            raw, echoed = self._without_key(await response.read()), response.headers.get("X-Request-Id", "")
            if response.status in RETRIED or response.status >= 500:
                raise _RetryError(f"status {response.status}", retry_after_s(response.headers.get("Retry-After")))
            if response.status != 200:
                reason = f"the server refused with status {response.status}: {self._reason(raw)}"
                too_long = response.status in (400, 413, 422) and TOO_LONG.search(reason)
                raise _TooLongError(reason) if too_long else ValueError(reason)
        try:
            # Control characters and malformed UTF-8 do not make a caption invalid; `caption.clean` removes them.
            answer = json.loads(raw.decode("utf-8", "replace"), strict=False)
            choice, usage = answer["choices"][0], answer.get("usage")
            message = choice["message"]
            text = message.get("content") or message.get("refusal") or ""
            if not isinstance(text, str):
                text = " ".join(part.get("text", "") for part in text)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _RetryError("a response that is not a chat completion") from None
        # vLLM derives its id from ours. Other servers send ids of their own, or none.
        named = {echoed, str(answer.get("id")).removeprefix("chatcmpl-")}
        if key not in named and not named.isdisjoint(batch.bodies):
            raise _RetryError("a response to another request")
        read, written = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
        return Reply(text, read, written, str(choice.get("finish_reason") or "stop"), time.monotonic() - began)

    def _reason(self, what: BaseException | bytes) -> str:
        """The reason of a failure, at most 200 characters, without the API key."""
        if isinstance(what, bytes):
            text = what.decode("utf-8", "replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = str(json.loads(text)["error"]["message"])
        else:
            text = (
                "no answer in time" if isinstance(what, TimeoutError) else f"{type(what).__name__}: {what}".rstrip(": ")
            )
        return " ".join(self._without_key(text.encode("utf-8", "replace")).decode().split())[:200]


def retry_after_s(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After header requests, as a number or a date; None for no or a malformed header."""
    if retry_after is None:
        return None
    with contextlib.suppress(ValueError):
        return float(retry_after)
    with contextlib.suppress(ValueError):
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    return None


def _count(usage: Any, name: str) -> int | None:
    """A token count; None if it is missing or malformed, which does not invalidate the caption."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value in COUNTS else None


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine to its end: in this thread, so that Ctrl-C interrupts it, or in a new one if a loop already runs here (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
