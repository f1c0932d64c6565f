"""Questions to an OpenAI-compatible server: many at a time, a limited number in flight, each tried again where that helps.

Tried again, after a pause that doubles (with jitter; what the server asks for by Retry-After counts more): 408, 409, 425, 429,
5xx, a connection that fails or closes early, no answer within the time limit, an answer that is not the expected JSON. Not tried
again: any other refusal. A question that has no answer in the end has a sentence instead; the others go on. A question that is
too long for the model is asked again, shorter, where it knows how (`shorter`).

An answer belongs to the question it was awaited for: it is returned under the question's key, which is also sent along as
`X-Request-Id`; an answer that names another question's is none. The API key comes from the environment, stands in the request's
header, and nowhere else: it is struck out of whatever a server says, answers included.
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

AGAIN = {408, 409, 425, 429}
LOOPBACK = {"localhost", "127.0.0.1", "::1"}
TOO_LONG = re.compile(r"context|too (long|large|many)|at most \d+ (image|video)", re.IGNORECASE)
"""How servers say, with 400, 413 or 422, that a question does not fit the model."""
COUNTS = range(2**31)
"""Token counts that are any, and fit their column."""
T = TypeVar("T")
Body = Callable[[], Mapping[str, Any]]


class _TooLongError(Exception):
    """The question is more than the model takes."""


class _TryAgainError(Exception):
    """The answer is none, for a reason that may pass; `wait_s` is what the server asks for."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass(frozen=True)
class Reply:
    """What a server wrote, and what it took; tokens are null where it does not count them."""

    text: str
    prompt_tokens: int | None
    output_tokens: int | None
    finish_reason: str
    seconds: float


@dataclass(frozen=True)
class _Batch:
    """The questions of one call, and what they share."""

    session: "aiohttp.ClientSession"
    gate: asyncio.Semaphore
    bodies: Mapping[str, Body]
    shorter: Callable[[str], bool]


@dataclass(frozen=True)
class ChatClient:
    """A server, and how patient one is with it.

    Attributes:
        base_url: Up to and with `/v1`.
        concurrency: Questions in flight at most.
        timeout_s: Seconds that one attempt may take.
        retries: Attempts after the first.
        backoff_s: Pause before the second attempt; it doubles each time, to a minute at most.
        api_key_env: Name of the environment variable with the key; None sends none.
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
            raise ValueError(f"base_url '{self.base_url}' is no http address such as http://127.0.0.1:8000/v1")
        if parts.username or parts.password:
            raise ValueError(
                "base_url holds a password; give the name of an environment variable as api_key_env instead"
            )
        for name, least in (("concurrency", 1), ("retries", 0), ("backoff_s", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        if not self.timeout_s > 0:
            raise ValueError(f"timeout_s is {self.timeout_s}; it must be above 0")

    def ask(
        self, bodies: Mapping[str, Body], shorter: Callable[[str], bool] = lambda key: False
    ) -> dict[str, Reply | str]:
        """Asks every question.

        Args:
            bodies: key to what makes the body of a chat completion (called when it is sent, so that few pictures wait in memory).
            shorter: called with the key of a question that is too long for the model; makes its next body shorter, or says False.

        Returns:
            Key to the reply, or to one sentence why there is none.
        """
        return _run(self._ask(bodies, shorter)) if bodies else {}

    def check(self, model: str) -> None:
        """Whether the server answers, lets us in and has the model (where it lists its models). Raises ValueError, in one sentence."""
        if self.api_key_env and not self._key():
            raise ValueError(f"the environment variable {self.api_key_env}, which should hold the API key, is not set")
        if not re.fullmatch(r"[!-~]*", self._key()):
            raise ValueError(f"the environment variable {self.api_key_env} holds characters that no API key has")
        found = _run(self._models())
        if found is not None and model not in found:
            near = difflib.get_close_matches(model, found, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"it has: {', '.join(sorted(found)[:10]) or 'none'}"
            raise ValueError(f"the server at {self.base_url} has no model '{model}'; {hint}")

    def _key(self) -> str:
        """The key, without the line end that a file leaves; empty where there is none."""
        return os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""

    def _struck(self, raw: bytes) -> bytes:
        """What a server said, without the key."""
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
        """Names of the server's models; None where it does not list them."""
        import aiohttp

        url = f"{self.base_url.rstrip('/')}/models"
        try:
            async with self._session() as session, session.get(url) as response:
                status, raw = response.status, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            told = f"no server answers at {self.base_url} ({self._told(error)}); start it, or mend base_url"
            raise ValueError(told) from None
        if status in (401, 403):
            how = f"the key in {self.api_key_env}" if self.api_key_env else "a request without a key; set api_key_env"
            raise ValueError(f"the server at {self.base_url} refuses {how} ({status})")
        try:
            return [str(entry["id"]) for entry in json.loads(raw)["data"]] if status == 200 else None
        except (ValueError, KeyError, TypeError):
            return None

    async def _ask(self, bodies: Mapping[str, Body], shorter: Callable[[str], bool]) -> dict[str, Reply | str]:
        async with self._session() as session:
            batch = _Batch(session, asyncio.Semaphore(self.concurrency), bodies, shorter)
            replies = await asyncio.gather(*(self._fitting(batch, key) for key in bodies))
        return dict(zip(bodies, replies, strict=True))

    async def _fitting(self, batch: "_Batch", key: str) -> Reply | str:
        """One question, made shorter until the model takes it."""
        while True:
            try:
                return await self._patiently(batch, key)
            except _TooLongError as error:
                if not batch.shorter(key):
                    return str(error)

    async def _patiently(self, batch: "_Batch", key: str) -> Reply | str:
        """One question, tried until it has an answer or the limit is reached. While it pauses another may go."""
        import aiohttp

        taken_s, reason = 0.0, ""
        for attempt in range(self.retries + 1):
            wait_s = None
            async with batch.gate:
                began = time.monotonic()
                try:
                    return await self._once(batch, key, began - taken_s)
                except _TryAgainError as error:
                    reason, wait_s = str(error), error.wait_s
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    reason = self._told(error)
                except ValueError as error:
                    return str(error)
                taken_s += time.monotonic() - began
            if attempt < self.retries:
                pause_s = min(60.0, self.backoff_s * 2**attempt) * random.uniform(0.5, 1.5)
                await asyncio.sleep(max(pause_s, min(wait_s or 0.0, self.timeout_s)))
        return f"the server gave no answer in {self.retries + 1} attempts; the last time: {reason}"

    async def _once(self, batch: "_Batch", key: str, began: float) -> Reply:
        """One attempt. Raises _TryAgainError, _TooLongError, an error of the connection, or ValueError where it is refused for good."""
        url = f"{self.base_url.rstrip('/')}/chat/completions"
        async with batch.session.post(url, json=batch.bodies[key](), headers={"X-Request-Id": key}) as response:
            raw, echoed = self._struck(await response.read()), response.headers.get("X-Request-Id", "")
            if response.status in AGAIN or response.status >= 500:
                raise _TryAgainError(f"status {response.status}", _seconds(response.headers.get("Retry-After")))
            if response.status != 200:
                told = f"the server refused with status {response.status}: {self._told(raw)}"
                too_long = response.status in (400, 413, 422) and TOO_LONG.search(told)
                raise _TooLongError(told) if too_long else ValueError(told)
        try:
            # Control characters, and bytes that are no UTF-8, are cleaned later; they are no reason to lose a caption.
            answer = json.loads(raw.decode("utf-8", "replace"), strict=False)
            choice, usage = answer["choices"][0], answer.get("usage")
            said = choice["message"]
            text = said.get("content") or said.get("refusal") or ""
            if not isinstance(text, str):
                text = " ".join(part.get("text", "") for part in text)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            raise _TryAgainError("an answer that is no chat completion") from None
        # vLLM, asked with our id, makes its own of it. Other servers echo nothing, or ids of theirs.
        named = {echoed, str(answer.get("id")).removeprefix("chatcmpl-")}
        if key not in named and not named.isdisjoint(batch.bodies):
            raise _TryAgainError("an answer to another question")
        read, written = (_count(usage, name) for name in ("prompt_tokens", "completion_tokens"))
        return Reply(text, read, written, str(choice.get("finish_reason") or "stop"), time.monotonic() - began)

    def _told(self, what: BaseException | bytes) -> str:
        """What went wrong, in few words, without the key."""
        if isinstance(what, bytes):
            text = what.decode("utf-8", "replace")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                text = str(json.loads(text)["error"]["message"])
        else:
            text = (
                "no answer in time" if isinstance(what, TimeoutError) else f"{type(what).__name__}: {what}".rstrip(": ")
            )
        return " ".join(self._struck(text.encode("utf-8", "replace")).decode().split())[:200]


def _seconds(retry_after: str | None) -> float | None:
    """What Retry-After asks for, in seconds or as a date."""
    if retry_after is None:
        return None
    with contextlib.suppress(ValueError):
        return float(retry_after)
    with contextlib.suppress(ValueError):
        return parsedate_to_datetime(retry_after).timestamp() - time.time()
    return None


def _count(usage: Any, name: str) -> int | None:
    """A number of tokens, where the server gives one: a caption is not lost for it."""
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value in COUNTS else None


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs it to its end: here, so that Ctrl-C ends it, or in a thread of its own where there is a loop already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
