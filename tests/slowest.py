"""Where the time of the tests goes: `python -m tests.slowest` prints the last recorded session, `--write LABEL` commits it.

`--write LABEL` writes tests/seconds.json (wall seconds of every file: decides which files start first) and adds or replaces the column LABEL of
benchmarks/results/tests.md, together with the fifty slowest tests of the session.
"""

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Iterable
from datetime import date

from tests.times import PHASES, ROOT, SECONDS, file_of, load

RESULTS = ROOT / "benchmarks" / "results" / "tests.md"
SHOWN = 50
INTRODUCTION = """# How long the tests take

Every session of pytest records wall and CPU seconds of each test (tests/times.py); CPU seconds include child processes (commands, decoders in
a sandbox, Ray). After `make test`, `python -m tests.slowest` prints the table below and `python -m tests.slowest --write LABEL`
updates this page.
"""


def folder_of(path: str) -> str:
    """The part of the suite that a file belongs to: `curate/shards`, `train_hooks`, `notebooks`."""
    parts = path.split("/")[1:-1]
    return "/".join(parts) or "."


def cpu_s(test: dict[str, list[float]]) -> float:
    """CPU seconds of a test, child processes included."""
    return sum(own + child for _, own, child in test.values())


def wall_s(test: dict[str, list[float]]) -> float:
    """Wall seconds of a test."""
    return sum(wall for wall, _, _ in test.values())


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def slowest(tests: dict[str, dict[str, list[float]]]) -> str:
    """The tests with the most CPU seconds, and where those go."""
    rows = []
    for name in sorted(tests, key=lambda name: -cpu_s(tests[name]))[:SHOWN]:
        phases = [tests[name].get(phase, [0.0, 0.0, 0.0]) for phase in PHASES]
        own, child = (sum(phase[i] for phase in phases) for i in (1, 2))
        setup = phases[0][1] + phases[0][2]
        figures = [wall_s(tests[name]), own + child, setup, own, child]
        rows.append([f"`{name.removeprefix('tests/').replace('|', '¦')}`", *(f"{value:.1f}" for value in figures)])
    return table(["test", "wall s", "CPU s", "of that setup", "own process", "children"], rows)


def by_folder(tests: dict[str, dict[str, list[float]]]) -> dict[str, list[float]]:
    """Folder to [tests, CPU seconds]; `all` is the sum."""
    found: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
    for name, test in tests.items():
        for folder in (folder_of(file_of(name)), "all"):
            found[folder][0] += 1
            found[folder][1] += cpu_s(test)
    return dict(found)


def sessions() -> dict[str, dict[str, list[float]]]:
    """Earlier columns of the committed table: label to folders."""
    found = re.search(r"<!-- sessions (.*) -->", RESULTS.read_text()) if RESULTS.exists() else None
    return json.loads(found[1]) if found else {}


def page(tests: dict[str, dict[str, list[float]]], label: str) -> str:
    """The committed page with this session as its last column."""
    columns = {name: folders for name, folders in sessions().items() if name != label}
    columns[label] = {name: [n, round(seconds, 1)] for name, (n, seconds) in by_folder(tests).items()}
    folders = sorted({name for column in columns.values() for name in column} - {"all"})
    rows = [[name, *(_cell(*column.get(name, [0, 0.0])) for column in columns.values())] for name in [*folders, "all"]]
    heads = ["folder of tests/", *(f"{name}: CPU s (tests)" for name in columns)]
    return (
        f"{INTRODUCTION}\n{table(heads, rows)}\n## The {SHOWN} tests with the most CPU seconds: {label}, {date.today()}\n\n{slowest(tests)}\n"
        f"<!-- sessions {json.dumps(columns)} -->\n"
    )


def _cell(n: float, seconds: float) -> str:
    return f"{seconds:.0f} ({n:.0f})" if n else "-"


def main() -> None:
    """Prints or writes the last recorded session."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", metavar="LABEL", help="update the committed files, as a column of that name")
    label = parser.parse_args().write
    tests = load()
    if label:
        seconds: dict[str, float] = defaultdict(float)
        for name, test in tests.items():
            seconds[file_of(name)] += wall_s(test)
        SECONDS.write_text(json.dumps({name: round(seconds[name], 1) for name in sorted(seconds)}, indent=1) + "\n")
        RESULTS.write_text(page(tests, label))
    print(slowest(tests))
    print(
        table(
            ["folder of tests/", "tests", "CPU s"],
            [[k, f"{n:.0f}", f"{s:.1f}"] for k, (n, s) in by_folder(tests).items()],
        )
    )


if __name__ == "__main__":
    main()
