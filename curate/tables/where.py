"""Conditions on columns, as in `--where "motion > 1 and camera = 'pan_left'"`: read into comparisons, never evaluated.

    motion > 1.5        = == != <> < <= > >=; numbers, 'texts', true, false; column on the left
    camera in ('pan_left', 'pan_right')        caption like '%bus%'        nsfw is null        not (a = 1 or b = 2)
    and, or, not, parentheses

A comparison with a null is not true, as in SQL.
"""

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.errors import UsageError, nearest

TOKEN = re.compile(
    r"\s*(?:(?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![A-Za-z_])|(?P<text>'(?:[^']|'')*')"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<sign><=|>=|<>|!=|==|=|<|>|\(|\)|,))"
)
KEYWORDS = {"and", "or", "not", "in", "like", "is", "null", "true", "false"}
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
ALIASES = {"==": "=", "<>": "!="}
MOST_CONDITIONS, MOST_NESTED = 200, 20
"""Maximum size of a condition. Ours: Arrow recurses and crashes at some thousand conditions; LanceDB refuses fifty nested ones."""
MOST_DIGITS = 1000
"""Maximum length of a number. Ours: Python refuses integers of more than 4300 digits (sys.get_int_max_str_digits)."""


@dataclass(frozen=True)
class Where:
    """A condition: as SQL for LanceDB, as an expression for pyarrow, and the columns that it reads."""

    sql: str
    expression: pc.Expression
    columns: frozenset[str] = field(default_factory=frozenset)


def parse(text: str, types: Mapping[str, pa.DataType]) -> Where:
    """Reads a condition on columns of these types.

    Raises UsageError, in one sentence, for a column that is not there, a value that does not fit its column, and anything that is no condition.
    """
    return _Parser(text, types).whole()


class _Parser:
    """Recursive descent: or, and, not, one comparison."""

    def __init__(self, text: str, types: Mapping[str, pa.DataType]) -> None:
        self.text, self.types = text, types
        self.tokens = list(self._tokens())
        if sum(kind == "word" and value in ("and", "or") for kind, value in self.tokens) >= MOST_CONDITIONS:
            raise self._error(f"it has more than {MOST_CONDITIONS} conditions; many values go into  name in (1, 2, 3)")
        self.at = 0
        self.nested = 0
        self.columns: set[str] = set()

    def _tokens(self) -> Iterator[tuple[str, str]]:
        at = 0
        text = self.text.rstrip()
        while at < len(text):
            found = TOKEN.match(text, at)
            if found is None:
                raise self._error(f"'{text[at:].strip()[:20]}' is not understood")
            at = found.end()
            kind = str(found.lastgroup)
            value = str(found[kind])
            if kind == "name" and value.lower() in KEYWORDS:
                kind, value = "word", value.lower()
            yield kind, value

    def _error(self, why: str) -> UsageError:
        return UsageError(
            f"--where \"{self.text[:200]}\": {why}; write comparisons such as  motion > 1 and camera = 'pan_left'"
        )

    def whole(self) -> Where:
        sql, expression = self._or()
        if self.at < len(self.tokens):
            raise self._error(f"'{self.tokens[self.at][1]}' is one too many")
        return Where(sql, expression, frozenset(self.columns))

    def _take(self, kind: str, *values: str) -> str | None:
        """Consumes and returns the next token if it is one of these."""
        if self.at < len(self.tokens):
            found, value = self.tokens[self.at]
            if found == kind and (not values or value in values):
                self.at += 1
                return value
        return None

    def _next(self) -> str:
        return self.tokens[self.at][1] if self.at < len(self.tokens) else "the end"

    def _or(self) -> tuple[str, pc.Expression]:
        return self._joined("or", operator.or_, lambda: self._joined("and", operator.and_, self._not))

    def _joined(
        self, word: str, join: Callable[[Any, Any], Any], inner: Callable[[], tuple[str, pc.Expression]]
    ) -> tuple[str, pc.Expression]:
        """Conditions joined by the same operator, in one pair of parentheses."""
        found = [inner()]
        while self._take("word", word):
            found.append(inner())
        sql, expressions = zip(*found, strict=True)
        return sql[0] if len(sql) == 1 else f"({f' {word.upper()} '.join(sql)})", reduce(join, expressions)

    def _not(self) -> tuple[str, pc.Expression]:
        negates = bool(self._take("word", "not"))
        if not negates and not self._take("sign", "("):
            return self._comparison()
        self.nested += 1
        if self.nested > MOST_NESTED:
            raise self._error(f"more than {MOST_NESTED} 'not' and parentheses in one another")
        if negates:
            sql, expression = self._not()
            sql, expression = f"(NOT {sql})", ~expression
        else:
            sql, expression = self._or()
            if not self._take("sign", ")"):
                raise self._error(f"a ')' is missing before {self._next()}")
        self.nested -= 1
        return sql, expression

    def _comparison(self) -> tuple[str, pc.Expression]:
        name = self._take("name")
        if name is None:
            raise self._error(f"a column is expected instead of {self._next()}")
        if name not in self.types:
            raise UsageError(f"--where \"{self.text}\": there is no column '{name}'{nearest(name, self.types)}")
        self.columns.add(name)
        column = pc.field(name)
        if self._take("word", "is"):
            negated = self._take("word", "not")
            if not self._take("word", "null"):
                raise self._error(f"'null' is expected after 'is' instead of {self._next()}")
            return (f"{name} IS NOT NULL", column.is_valid()) if negated else (f"{name} IS NULL", column.is_null())
        negated = self._take("word", "not")
        if self._take("word", "in"):
            values = self._list(name)
            sql = f"{name} IN ({', '.join(map(_quoted, values))})"
            # For Arrow a null is in no list, so `not in` would hold for it; in SQL neither holds.
            listed = column.isin(pa.array(values, self.types[name]))
            expression = pc.if_else(column.is_valid(), listed, pa.scalar(None, pa.bool_()))
            return (f"(NOT {sql})", ~expression) if negated else (sql, expression)
        if self._take("word", "like"):
            pattern = self._value(name)
            if not isinstance(pattern, str):
                raise self._error("'like' wants a text such as '%bus%'")
            sql, expression = f"{name} LIKE {_quoted(pattern)}", pc.match_like(column, pattern)
            return (f"(NOT {sql})", ~expression) if negated else (sql, expression)
        sign = None if negated else self._take("sign", *COMPARE, *ALIASES)
        if sign is None:
            raise self._error(f"a comparison is expected after '{name}' instead of {self._next()}")
        sign = ALIASES.get(sign, sign)
        value = self._value(name)
        return f"{name} {sign} {_quoted(value)}", COMPARE[sign](column, pa.scalar(value, self.types[name]))

    def _list(self, name: str) -> list[Any]:
        if not self._take("sign", "("):
            raise self._error("'in' wants values in parentheses")
        values = [self._value(name)]
        while self._take("sign", ","):
            values.append(self._value(name))
        if not self._take("sign", ")"):
            raise self._error(f"a ')' is missing before {self._next()}")
        return values

    def _value(self, name: str) -> Any:
        """A value of the column's type."""
        kind = self.types[name]
        if (word := self._take("word", "true", "false")) is not None:
            value: Any = word == "true"
            fits = pa.types.is_boolean(kind)
        elif (number := self._take("number")) is not None:
            fits = pa.types.is_floating(kind) or pa.types.is_integer(kind)
            whole = pa.types.is_integer(kind) and re.fullmatch(rf"[-+]?\d{{1,{MOST_DIGITS}}}", number)
            value = int(number) if whole else float(number)
            if pa.types.is_integer(kind) and isinstance(value, float):
                raise self._error(f"{name} holds whole numbers, and {number} is none")
        elif (text := self._take("text")) is not None:
            value = text[1:-1].replace("''", "'")
            fits = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        else:
            raise self._error(f"a number, a 'text', true or false is expected after '{name}' instead of {self._next()}")
        if not fits:
            raise self._error(f"{name} holds {_kind(kind)}, and {_quoted(value)} does not fit")
        try:
            pa.scalar(value, kind)
        except (OverflowError, pa.ArrowException):
            raise self._error(f"{name} holds {kind}, and {_quoted(value)} is too large for it") from None
        return value


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_boolean(kind):
        return "true or false"
    if pa.types.is_floating(kind) or pa.types.is_integer(kind):
        return "numbers"
    return "text" if pa.types.is_string(kind) else "what cannot be compared"


def _quoted(value: Any) -> str:
    """An SQL literal."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)
