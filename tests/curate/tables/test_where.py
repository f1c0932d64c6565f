"""Conditions: parsed into comparisons, with the same result in LanceDB and pyarrow; no code is evaluated."""

import lancedb
import pyarrow as pa
import pytest

from curate.errors import UsageError
from curate.tables.where import parse

TABLE = pa.table(
    {
        "n": pa.array([1, 2, 3, None], pa.int32()),
        "motion": pa.array([0.5, 1.5, None, 3.0], pa.float32()),
        "camera": pa.array(["pan_left", "static", "it's", None]),
        "is_screen": pa.array([True, False, None, True]),
        "vector": pa.array([[0.0, 1.0]] * 4, pa.list_(pa.float32(), 2)),
    }
)
TYPES = {field.name: field.type for field in TABLE.schema}


@pytest.fixture(scope="module")
def lance(tmp_path_factory):
    return lancedb.connect(str(tmp_path_factory.mktemp("lance"))).create_table("t", TABLE)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("motion > 1", [1, 3]),
        ("motion >= 1.5 and n <= 2", [1]),
        ("motion<.6", [0]),
        ("n = 1 or n = 3", [0, 2]),
        ("n <> 2", [0, 2]),
        ("n != -2", [0, 1, 2]),
        ("camera = 'it''s'", [2]),
        ("camera == 'static'", [1]),
        ("camera in ('pan_left', 'static')", [0, 1]),
        ("camera not in ('pan_left')", [1, 2]),
        ("not (camera in ('pan_left'))", [1, 2]),
        ("camera like '%a%'", [0, 1]),
        ("camera not like 'pan%'", [1, 2]),
        ("motion is null", [2]),
        ("motion IS NOT NULL", [0, 1, 3]),
        ("not (motion > 1 or is_screen = true)", []),
        ("is_screen = true AND NOT n = 2", [0]),
        ("is_screen != true", [1]),
        ("motion > 1e0", [1, 3]),
        ("n in (1, 2) and (motion > 1 or camera = 'pan_left')", [0, 1]),
    ],
)
def test_lance_and_pyarrow_agree(lance, text, rows):
    found = parse(text, TYPES)
    numbered = TABLE.append_column("i", pa.array(range(4)))
    assert numbered.filter(found.expression).column("i").to_pylist() == rows
    expected = TABLE.take(pa.array(rows, pa.int64())).column("n").to_pylist()
    assert [row["n"] for row in lance.search().where(found.sql).limit(10).to_list()] == expected


@pytest.mark.parametrize(
    ("text", "n"),
    [
        (
            f"n in ({', '.join(map(str, range(2, 20_002)))})",
            [2, 3],
        ),  # a chain of comparisons of this length crashed Arrow
        (" or ".join(["n = 2"] * 200), [2]),  # LanceDB rejected nested pairs of parentheses
        (" and ".join(["n > 1"] * 200), [2, 3]),
        ("(" * 20 + "n = 2" + ")" * 20, [2]),
        ("not " * 20 + "n = 2", [2]),
        ("(not " * 10 + "n = 2" + ")" * 10, [2]),
    ],
    ids=["in", "or", "and", "parentheses", "not", "both"],
)
def test_long_conditions_are_supported(lance, text, n):
    found = parse(text, TYPES)
    assert TABLE.filter(found.expression)["n"].to_pylist() == n
    assert [row["n"] for row in lance.search().where(found.sql).limit(10).to_list()] == n


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("motoin > 1", "there is no column 'motoin'; did you mean 'motion'?"),
        ("motion", "a comparison is expected after 'motion' instead of the end"),
        ("motion > 'a'", "motion holds numbers, and 'a' does not fit"),
        ("camera = 1", "camera holds text, and 1.0 does not fit"),
        ("n = 1.5", "n holds whole numbers, and 1.5 does not fit"),
        ("is_screen = 1", "is_screen holds true or false"),
        ("vector = 1", "vector holds what cannot be compared"),
        ("motion > 1 and", "a column is expected instead of the end"),
        ("(motion > 1", "a ')' is missing before the end"),
        ("motion > 1 motion < 2", "'motion' is unexpected; conditions are joined by 'and' or 'or'"),
        ("1 < motion", "a column is expected instead of 1"),
        ("motion > n", "a number, a 'text', true or false is expected after 'motion' instead of n"),
        ("__import__('os').system('true')", "'.system('true')' is not understood"),
        ("motion > 1; drop table clips", "is not understood"),
        ("motion > abs(n)", "is expected after 'motion' instead of abs"),
        ("camera = 'open", "''open' is not understood"),
        ("motion in ()", "is expected after 'motion' instead of )"),
        ("motion > 1x", "is not understood"),
        ("", "a column is expected instead of the end"),
        ("n = " + "9" * 30, "n holds int32, and 9999"),
        ("n = " + "9" * 5000, "does not fit"),
        ("not " * 300 + "n = 1", "more than 20 'not' and parentheses in one another"),
        ("(" * 300 + "n = 1" + ")" * 300, "more than 20 'not' and parentheses in one another"),
        (" or ".join(["n = 1"] * 300), "more than 200 conditions; many values go into"),
    ],
)
def test_invalid_condition_raises_usage_error(text, message):
    with pytest.raises(UsageError) as caught:
        parse(text, TYPES)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
