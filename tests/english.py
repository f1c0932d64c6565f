"""Words that the project does not use in text or names, each with its replacement.

`python -m tests.english [PATH ...]` lists every occurrence and ends with 1 when there is one; `make lint` calls it.
"""

import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WORDS = {
    r"told": "reported, logged, printed; `message`, `reason`",
    r"heard": "received; `receipt`, `on_...`",
    r"said": "reported; `message`",
    r"anew": "again; restarts, regenerates, recreates",
    r"foretell\w*|foretold": "predict, estimate",
    r"reckon\w*": "compute, estimate",
    r"(work|works|worked|working) out": "compute, derive",
    r"(go|goes|going|went|gone) on": "resume, continue",
    r"is none|are none": "is not a valid X, is malformed, does not exist",
    r"costs itself": "affects only itself",
    r"nothing twice": "no data lost or duplicated",
    r"harm|harms|harmed|harming": "fault",
    r"strangers?": "untrusted",
    r"fence|fences": "sandbox",
    r"borne": "tolerated",
    r"believed|at its word": "verified, trusted; as given",
    r"lie|lies|lay": "is stored, is, are",
    r"stands? (twice|in|at|beside|behind)": "is (duplicate, stored)",
    r"one too many": "unexpected",
    r"whatever is there": "existing",
    r"given twice": "duplicate",
    r"the fewest": "minimum",
    r"for want of": "because ... is missing",
    r"the like|of the kind": "similar",
    r"last_word|last word": "exit_reason",
}
PATTERN = re.compile(r"(?<![A-Za-z])(?:" + "|".join(f"(?:{word})" for word in WORDS) + r")(?![A-Za-z])")
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".ipynb", ".js", ".html", ".css", ".cff", ""}
EXEMPT = (
    "tests/english.py",
    "tests/test_english.py",
    "benchmarks/results/tests.md",
    "curate/report/page/vendor/",
    "LICENSE",
)


def files(paths: Sequence[str] = ()) -> Iterator[Path]:
    """The tracked and new text files under these paths, by default all."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *paths]
    for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
        path = ROOT / name
        if path.is_file() and path.suffix in TEXT and not name.startswith(EXEMPT):
            yield path


def findings(paths: Sequence[str] = ()) -> list[str]:
    """`file:line: the word: what to write instead` of every occurrence."""
    found = []
    for path in files(paths):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            for match in PATTERN.finditer(line) if '"image/' not in line else ():  # base64 may hold any word
                instead = next(text for word, text in WORDS.items() if re.fullmatch(word, match[0]))
                found.append(f"{path.relative_to(ROOT)}:{number}: '{match[0]}': {instead}")
    return found


def main(paths: Sequence[str]) -> int:
    """Prints every occurrence; the exit code is 1 when there is one."""
    found = findings(paths)
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
