"""What a child of the sandbox may answer: plain values, arrays of numbers and a few records, in an encoding that cannot run code.

A decoder that was taken over by the file it reads can send whatever it likes. Pickle would then run it in the parent; this is JSON beside the
bytes, and whatever is not in it is refused. A value that JSON does not know is an object with one key:

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
"""Classes of ours that an answer may hold, and where they are; built anew from their fields."""
NUMBERS = "biufcMm"
"""Kinds of arrays: truth values, integers, floats, complex numbers, times. Never objects."""
DTYPE = re.compile(rf"[<>|=][{NUMBERS}]\d{{1,2}}(\[\d*[A-Za-z]+\])?")
"""How such an array is named; numpy evaluates other names as if they were Python."""
HEAD = struct.Struct(">Q")


class AnswerError(ValueError):
    """A value that cannot be sent, or bytes that are no answer."""


def encode(value: Any) -> bytes:
    """Returns the answer as bytes. Raises AnswerError for a value that it may not hold."""
    pieces: list[bytes] = []
    at = 0

    def keep(data: bytes) -> list[int]:
        nonlocal at
        pieces.append(data)
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
        raise AnswerError(f"the sandbox cannot hand over a {kind.__module__}.{kind.__qualname__}")

    try:
        head = json.dumps(plain(value), separators=(",", ":")).encode()
    except RecursionError as error:
        raise AnswerError("the sandbox cannot hand over values nested so deeply") from error
    return b"".join((HEAD.pack(len(head)), head, *pieces))


def decode(data: bytes) -> Any:
    """Returns the value of an answer. Raises AnswerError for bytes that are none; no bytes do anything else."""
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
        raise AnswerError("the decoder gave an answer that is none") from error


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
        return bytes(_piece(inner, rest))
    if kind == "a":
        name, shape, *where = inner
        if not DTYPE.fullmatch(name):
            raise AnswerError(f"an array of {name}")
        array = np.frombuffer(bytes(_piece(where, rest)), np.dtype(name)).reshape(shape)
        return array.copy() if shape else array[()]
    if kind == "r":
        name, values = inner
        made = getattr(importlib.import_module(RECORDS[name]), name)
        return made(*(_value(item, rest) for item in values))
    raise AnswerError(f"a value of kind {kind!r}")


def _piece(where: Sequence[int], rest: memoryview) -> memoryview:
    at, size = where
    if not 0 <= at <= at + size <= len(rest):
        raise AnswerError("bytes that are not there")
    return rest[at : at + size]


def _fields(kind: type) -> Sequence[str]:
    named: Sequence[str] = getattr(kind, "_fields", ())
    return named or [field.name for field in dataclasses.fields(kind)]
