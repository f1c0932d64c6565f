"""The encoding of the sandbox's answers: plain values, arrays of numbers and a few records. Decoding cannot run code.

A decoder that was exploited by the file it reads can send any bytes. With pickle they could run code in the parent, so an answer is JSON
followed by binary data, and all other values are refused. A value that JSON lacks is an object with one key:

    {"b": [at, size]}  bytes      {"t": [...]}  tuple       {"d": [[key, value], ...]}  dictionary
    {"a": [dtype, shape, at, size]}  array of numbers       {"r": [name, [field, ...]]}  one of RECORDS
"""

import dataclasses
import importlib
import json
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

RECORDS = {
    "Box": "curate.video.letterbox",
    "Cut": "curate.clips.records",
    "CutError": "curate.clips.records",
    "Sample": "curate.video.seek",
    "VideoInfo": "curate.video.header",
}
"""Our classes that an answer may hold, and their modules; decoding builds them from their fields."""
NUMBERS = "biufcMm"
"""NumPy's kinds that an array may have: booleans, integers, floats, complex numbers, times. Never objects."""
DTYPE = re.compile(rf"[<>|=][{NUMBERS}]\d{{1,2}}(\[\d*[A-Za-z]+\])?")
"""Names of array types that are decoded; NumPy evaluates other names as Python expressions."""
HEAD = struct.Struct(">Q")


class AnswerError(ValueError):
    """A value that cannot be sent, or bytes that are not a valid answer."""


def encode(value: Any) -> bytes:
    """Returns the answer as bytes. Raises AnswerError for a value of another type."""
    blocks: list[bytes] = []
    at = 0

    def keep(data: bytes) -> list[int]:
        nonlocal at
        blocks.append(data)
        at += len(data)
        return [at - len(data), len(data)]

    def plain(value: Any) -> Any:
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind is list:
            return [plain(item) for item in value]
        if kind is dict:
            return {"d": [[plain(key), plain(item)] for key, item in value.items()]}
        if kind is tuple:
            return {"t": [plain(item) for item in value]}
        if kind in (bytes, bytearray):
            return {"b": keep(bytes(value))}
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in NUMBERS:
            return {"a": [value.dtype.str, list(value.shape), *keep(value.tobytes())]}
        if RECORDS.get(kind.__name__) == kind.__module__:
            return {"r": [kind.__name__, [plain(getattr(value, name)) for name in _fields(kind)]]}
        raise AnswerError(f"the sandbox cannot return a {kind.__module__}.{kind.__qualname__}")

    try:
        head = json.dumps(plain(value), separators=(",", ":")).encode()
    except RecursionError as error:
        raise AnswerError("the sandbox cannot return values nested so deeply") from error
    return b"".join((HEAD.pack(len(head)), head, *blocks))


def decode(data: bytes) -> Any:
    """Returns the value of an answer. Raises AnswerError for all bytes that are not a valid answer."""
    try:
        (size,) = HEAD.unpack_from(data)
        rest = memoryview(data)[HEAD.size + size :]
        return _value(json.loads(data[HEAD.size : HEAD.size + size]), rest)
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        AttributeError,
        OverflowError,
        RecursionError,
        struct.error,
    ) as error:
        raise AnswerError("the decoder returned a malformed answer") from error


def _value(node: Any, rest: memoryview) -> Any:
    if not isinstance(node, list | dict):
        return node
    if isinstance(node, list):
        return [_value(item, rest) for item in node]
    ((kind, inner),) = node.items()
    if kind == "d":
        return {_value(key, rest): _value(item, rest) for key, item in inner}
    if kind == "t":
        return tuple(_value(item, rest) for item in inner)
    if kind == "b":
        return bytes(_block(inner, rest))
    if kind == "a":
        name, shape, *where = inner
        if not DTYPE.fullmatch(name):
            raise AnswerError(f"an array of type {name} is not allowed")
        array = np.frombuffer(bytes(_block(where, rest)), np.dtype(name)).reshape(shape)
        return array.copy() if shape else array[()]
    if kind == "r":
        name, values = inner
        made = getattr(importlib.import_module(RECORDS[name]), name)
        return made(*(_value(item, rest) for item in values))
    raise AnswerError(f"unknown kind of value {kind!r}")


def _block(where: Sequence[int], rest: memoryview) -> memoryview:
    at, size = where
    if not 0 <= at <= at + size <= len(rest):
        raise AnswerError("bytes beyond the end of the answer")
    return rest[at : at + size]


def _fields(kind: type) -> Sequence[str]:
    named: Sequence[str] = getattr(kind, "_fields", ())
    return named or [field.name for field in dataclasses.fields(kind)]
