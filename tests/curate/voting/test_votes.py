"""Votes: the file, valid votes, imports; malformed contests; and the next question for a voter."""

import json
import os
import shutil
import threading
import uuid
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from curate.errors import RunError, UsageError
from curate.voting import contest, votes
from curate.voting.blind import KEY, Blind
from curate.voting.booth import Booth, Task
from curate.voting.contest import Comparison
from curate.voting.votes import Choice, Vote, append, read, standing
from tests.curate.voting.contests import CONTESTANTS, PROMPTS, make_contest

PAIR = Comparison("motion", 0, 0, "everything", "motion-25")
NASTY = "‮<script>alert(1)</script>\"'‏ שלום 🎬"


def vote(choice: Choice = "left", voter: str = "Anna", **more: Any) -> Vote:
    made = votes.new_vote(voter, PAIR, more.pop("left", PAIR.a), more.pop("question", "quality"), choice)
    return replace(made, **more)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A contest without votes; tests must not change it."""
    return make_contest(tmp_path_factory.mktemp("votes"), seeds=2)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run" / "ablate" / "first"))


@pytest.mark.parametrize(
    ("lines", "valid"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([("Anna", "quality", "a", "left")], ["left"], id="one"),
        pytest.param([("Anna", "quality", "a", "left"), ("Anna", "quality", "a", "tie")], ["tie"], id="superseded"),
        pytest.param([("Anna", "quality", "a", "left"), ("Anna", "quality", "b", "left")], ["left b"], id="sides"),
        pytest.param([("Anna", "quality", "a", "left"), ("Anna", "quality", "a", "undone")], [], id="taken back"),
        pytest.param([("Anna", "quality", "a", "undone")], [], id="nothing to take back"),
        pytest.param(
            [("Anna", "quality", "a", "left"), ("Anna", "quality", "a", "undone"), ("Anna", "quality", "a", "right")],
            ["right"],
            id="changed",
        ),
        pytest.param(
            [("Anna", "quality", "a", "left"), ("Anna", "prompt", "a", "right"), ("Ben", "quality", "a", "tie")],
            ["left", "right", "tie"],
            id="questions and voters are apart",
        ),
    ],
)
def test_the_last_answer_is_valid(lines: list[tuple[str, Any, str, Any]], valid: list[str]) -> None:
    sides = {"a": PAIR.a, "b": PAIR.b}
    found = standing([vote(choice, voter, question=q, left=sides[side]) for voter, q, side, choice in lines])
    assert [v.choice + (" b" if v.left == PAIR.b else "") for v in found] == valid


def test_games_are_plain_tuples() -> None:
    found = votes.games([vote("left"), vote("right", "Ben"), vote("tie", "Eve", left=PAIR.b)])
    assert found == [
        ("everything", "motion-25", 1.0, "Anna", "0/0"),
        ("everything", "motion-25", 0.0, "Ben", "0/0"),
        ("motion-25", "everything", 0.5, "Eve", "0/0"),
    ]


def test_appended_votes_are_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "votes.jsonl"
    assert read(path) == votes.Votes(())
    written = [vote("left", NASTY), vote("tie", "Zoë/../../etc", group="\u2028\n", left=PAIR.b)]
    append(path, written[:1])
    append(path, written[1:])
    assert read(path) == votes.Votes(tuple(written))
    assert path.read_bytes().count(b"\n") == 2


def test_a_torn_last_line_costs_one_vote_and_the_next_starts_a_new_line(tmp_path: Path) -> None:
    path, written = tmp_path / "votes.jsonl", [vote() for _ in range(4)]
    append(path, written[:3])
    path.write_bytes(path.read_bytes()[:-20])
    found = read(path)
    assert found.votes == tuple(written[:2])
    assert found.troubles == ("votes.jsonl, line 3 is incomplete and is skipped; all other votes count (2)",)
    append(path, written[3:])
    assert read(path).votes == (written[0], written[1], written[3])
    assert "line 3 is damaged" in read(path).troubles[0]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        pytest.param(b"[" * 100_000, "is damaged", id="nesting"),
        pytest.param(b"\xff\xfe", "is damaged", id="no UTF-8"),
        pytest.param(b"[1]", "is not a vote", id="no object"),
        pytest.param(b"{}", "has no voter", id="empty"),
        pytest.param(b'"prompt": "0"', "has a wrong prompt", id="a text for a number"),
        pytest.param(b'"prompt": true', "has a wrong prompt", id="a flag for a number"),
        pytest.param(b'"choice": "both"', "has an unknown question or choice", id="choice"),
        pytest.param(b'"id": "../x"', "has a wrong id", id="id"),
    ],
)
def test_a_malformed_line_is_reported_and_skipped(tmp_path: Path, line: bytes, reason: str) -> None:
    path, good = tmp_path / "votes.jsonl", vote()
    if line.startswith(b'"'):
        line = json.dumps(asdict(good) | json.loads(b"{" + line + b"}")).encode()
    append(path, [good])
    path.write_bytes(line + b"\n" + path.read_bytes())
    assert read(path).votes == (good,)
    assert read(path).troubles == (f"votes.jsonl, line 1 {reason} and is skipped; all other votes count (1)",)


def test_unknown_keys_are_ignored_and_an_id_counts_once(tmp_path: Path) -> None:
    path, one = tmp_path / "votes.jsonl", vote()
    line = json.dumps(asdict(one) | {"mood": "good"})
    path.write_text(f"{line}\n\n{line}\n")
    assert read(path) == votes.Votes((one,))


def test_a_full_disk_leaves_the_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "votes.jsonl"
    append(path, [vote()])
    before, write = path.read_bytes(), os.write

    def half(handle: int, data: Any) -> int:
        if len(data) < 40:
            raise OSError(28, "No space left on device")
        return write(handle, data[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(RunError, match="No space left on device; the vote is not recorded"):
            append(path, [vote()])
    assert path.read_bytes() == before


def test_concurrent_writers_lose_no_vote(tmp_path: Path) -> None:
    path = tmp_path / "votes.jsonl"
    written = [[vote(voter=f"voter {k}") for _ in range(25)] for k in range(4)]
    threads = [threading.Thread(target=lambda mine=mine: [append(path, [v]) for v in mine]) for mine in written]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = read(path)
    assert not found.troubles
    assert [[v for v in found.votes if v.voter == f"voter {k}"] for k in range(4)] == written


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Anna", "Anna"),
        ("  Anna \n Maria ", "Anna Maria"),
        ("Zoe\u0308", "Zo\u00eb"),
        ("../../etc/passwd", "../../etc/passwd"),
        ("👩‍🎬 <b>", "👩‍🎬 <b>"),
        ("שלום", "שלום"),
        ("", "a voter needs a name"),
        (None, "a voter needs a name"),
        ("x" * 10_000, "the name has 10000 characters; the maximum is 100"),
        ("a\u202eb", "the name has invisible characters; type it without them"),
        ("a\x00b", "the name has invisible characters; type it without them"),
        ("a\ud800b", "the name has invisible characters; type it without them"),
    ],
    ids=repr,
)
def test_names_of_voters(text: Any, name: str) -> None:
    if not name.startswith(("a voter", "the name")):
        assert votes.voter_name(text) == name
        return
    with pytest.raises(UsageError) as refused:
        votes.voter_name(text)
    assert str(refused.value) == name


def packed_lines(folder: Path, voter: str = "Anna") -> list[dict[str, Any]]:
    """Lines of a download from a packed page: an answer to each comparison."""
    booth = Booth(contest.read(folder))
    items = [booth.blind.item(c, left) for c, left in booth.blind.balanced(booth.comparisons, "packed").items()]
    return [
        {"voter": voter, "item": item.id, "question": "quality", "choice": "left", "id": f"{voter}{i}",
         "time": "2026-05-01T10:00:00.000Z"}
        for i, item in enumerate(items)
    ]  # fmt: skip


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_imported_votes_count_once_and_a_torn_last_line_is_skipped(folder: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "votes-Anna.jsonl", packed_lines(folder))
    file.write_bytes(file.read_bytes()[:-9])
    taken = votes.import_votes(folder, file)
    assert (taken.new, taken.known) == (23, 0)
    assert "line 24 is incomplete" in taken.troubles[0]
    assert votes.import_votes(folder, write_lines(file, packed_lines(folder))) == votes.Imported(1, 23)
    assert votes.import_votes(folder, file) == votes.Imported(0, 24)
    found = read(folder / "votes.jsonl").votes
    assert len({v.what for v in found}) == len(found) == 24
    assert {(v.left, v.time) for v in found} == {(name, "2026-05-01T10:00:00.000+00:00") for name in CONTESTANTS}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"time": "yesterday"}, "has a wrong time"),
        ({"time": "0001-01-01T00:00:00+23:00"}, "has a wrong time"),
        ({"voter": "x" * 10_000}, "has no valid voter (the name has 10000 characters; the maximum is 100)"),
        ({"choice": None}, "has no choice"),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_imported_is_skipped(
    folder: Path, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    first, second, *_ = packed_lines(folder)
    taken = votes.import_votes(folder, write_lines(tmp_path / "x.jsonl", [first, second | change]))
    assert taken == votes.Imported(1, 0, (f"x.jsonl, line 2 {reason} and is skipped; all other votes count (1)",))


def test_the_votes_of_a_copy_are_imported_unchanged(folder: Path, tmp_path: Path) -> None:
    copy = make_contest(tmp_path / "copy", prompts=PROMPTS[:2])
    append(copy / "votes.jsonl", [vote(), vote("undone"), vote("tie", "Ben")])
    assert votes.import_votes(folder, copy / "votes.jsonl").new == 3
    assert read(folder / "votes.jsonl") == read(copy / "votes.jsonl")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"item": "0" * 24}, "these votes are of another contest, or of a folder packed with another vote.key; no vote was imported"),
        ({"item": ["x"]}, "these votes are of another contest, or of a folder packed with another vote.key; no vote was imported"),
        (asdict(vote(left="nobody")), "has votes of another contest (nobody against everything, prompt 0); no vote was imported"),
        (asdict(vote(prompt=99)), "has votes of another contest (everything against motion-25, prompt 99); no vote was imported"),
        (asdict(vote(group="colour")), "has votes of another contest (everything against motion-25, prompt 0); no vote was"),
    ],
)  # fmt: skip
def test_a_file_with_votes_of_another_contest_is_rejected(
    folder: Path, tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    file = write_lines(tmp_path / "votes.jsonl", [*packed_lines(folder), change | {"voter": "Ben", "id": "b"}])
    lines = file.read_text().splitlines()
    wrong = json.loads(lines[-1])
    lines[-1] = json.dumps({"question": "quality", "choice": "tie", "time": "2026-05-01T10:00:00Z"} | wrong)
    file.write_text("\n".join(lines))
    with pytest.raises(UsageError) as refused:
        votes.import_votes(folder, file)
    assert sentence in str(refused.value)
    assert not (folder / "votes.jsonl").exists()


@pytest.mark.parametrize("data", [b"", b"\x00\x01\x02\n\xff", b"{}"], ids=["empty", "binary", "an object"])
def test_a_file_without_votes_is_an_error(folder: Path, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(data)
    with pytest.raises(UsageError, match=r"x.jsonl has no votes"):
        votes.import_votes(folder, tmp_path / "x.jsonl")
    with pytest.raises(UsageError, match=r"y.jsonl cannot be read: No such file or directory"):
        votes.import_votes(folder, tmp_path / "y.jsonl")


def test_a_missing_video_removes_its_comparisons(tmp_path: Path) -> None:
    gone = [f"samples/motion-25-s0/{i:02}.mp4" for i in (0, 2)]
    opened = contest.read(make_contest(tmp_path, missing=gone))
    found = list(opened.comparisons())
    assert len(found) == 3 * 4 - 2 * 2
    assert len(list(opened.comparisons(missing=True))) == 3 * 4
    assert {c.prompt for c in found if c.b == "motion-25"} == {1, 3}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 2}, "has version 2, from a newer rushes (this one reads up to 1)"),
        ({"prompts": None}, "was not written by rushes ablate"),
        ({"prompts": [1]}, "a prompt is not text: 1"),
        ({"groups": [{"contestants": []}]}, "no 'name'"),
        ({"groups": [{"name": "x", "contestants": ["a", "a"]}]}, "appears twice"),
        ({"videos": {"everything": [["../../secret.mp4"]]}}, "a video is outside of the folder: '../../secret.mp4'"),
        ({"videos": {"everything": [["/etc/passwd"]]}}, "a video is outside of the folder: '/etc/passwd'"),
        ({"videos": {"everything": [["a"] * 5]}}, "more videos than there are prompts"),
    ],
    ids=str,
)
def test_a_malformed_contest_is_one_sentence(folder: Path, change: dict[str, Any], reason: str) -> None:
    content = json.loads((folder / "contest.json").read_text())
    (folder / "contest.json").write_text(json.dumps(content | change))
    with pytest.raises(RunError) as refused:
        contest.read(folder)
    assert reason in str(refused.value)


def test_a_link_out_of_the_folder_is_not_a_video(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "secret.mp4"
    outside.write_bytes(b"secret")
    inside = folder / "samples" / "everything-s0" / "00.mp4"
    inside.unlink()
    inside.symlink_to(outside)
    assert contest.read(folder).video("everything", 0, 0) is None


def test_the_newest_ablation_is_found(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="there is no folder"):
        contest.find(str(run))
    run.mkdir()
    with pytest.raises(UsageError) as none:
        contest.find(str(run))
    assert str(none.value) == f"{run} has no ablation yet; make one with  rushes ablate {run}"
    folders = [make_contest(run, name, prompts=PROMPTS[:1]) for name in ("second", "first")]
    os.utime(folders[0] / "contest.json", (1, 1))
    assert contest.find(str(run)) == folders[1]
    assert contest.find(str(run), "second") == folders[0]
    with pytest.raises(UsageError, match="has no ablation 'secnd'; did you mean 'second'"):
        contest.find(str(run), "secnd")
    with pytest.raises(UsageError, match=r"has no ablation '\.\./second'"):
        contest.find(str(run), "../second")
    with pytest.raises(
        UsageError, match="on object storage, which cannot append votes to a file; copy its ablate/ to a disk"
    ):
        contest.find("s3://bucket/run")


def ask_all(booth: Booth, voter: str, n: int | None = None, choice: Choice = "left") -> list[Task]:
    """Answers n questions, or all."""
    tasks: list[Task] = []
    while (n is None or len(tasks) < n) and (task := booth.next(voter)):
        tasks.append(task)
        booth.vote(voter, task.item.id, task.question, choice, uuid.uuid4().hex)
    return tasks


def test_sides_are_balanced_and_both_questions_have_the_same(folder: Path) -> None:
    booth = Booth(contest.read(folder))
    for voter in ("Anna", "Ben", NASTY[1:]):
        tasks = ask_all(booth, voter)
        assert len(tasks) == booth.total == booth.done(voter) == 48
        assert [task.question for task in tasks] == ["quality", "prompt"] * 24
        assert all(tasks[i].item == tasks[i + 1].item for i in range(0, 48, 2))
        lefts = Counter((task.item.comparison.a, task.item.comparison.b, task.item.left) for task in tasks[::2])
        assert set(lefts.values()) == {4}
    firsts = {voter: [t.item.comparison for t in ask_all(Booth(booth.contest), voter, 1)] for voter in "abcdefgh"}
    assert len({str(first) for first in firsts.values()}) > 2


def test_votes_spread_evenly(folder: Path) -> None:
    booth = Booth(contest.read(folder))
    for k in range(8):
        ask_all(booth, f"voter {k}", 12)
    counts = Counter(v.what for v in standing(read(folder / "votes.jsonl").votes))
    assert len(counts) == 24
    assert set(counts.values()) == {4}


def test_a_new_booth_resumes(folder: Path) -> None:
    ask_all(Booth(contest.read(folder)), "Anna", 7)
    booth = Booth(contest.read(folder))
    first = booth.next("Anna")
    assert first is not None
    assert first.question == "prompt"
    assert Booth(booth.contest).next("Anna") == first
    asked = {(task.item.comparison, task.question) for task in ask_all(booth, "Anna", 41)}
    assert len(asked) == 41
    assert booth.next("Anna") is None


def test_undo_removes_one_answer_after_the_other(folder: Path) -> None:
    booth = Booth(contest.read(folder))
    tasks = ask_all(booth, "Anna", 5)
    ask_all(booth, "Ben", 3)
    for i, task in enumerate(reversed(tasks)):
        booth.undo("Anna", f"undo-{i}")
        booth.undo("Anna", f"undo-{i}")  # arrives twice
        assert booth.next("Anna") == task
        assert booth.done("Anna") == 4 - i
    booth.undo("Anna", "one-more")
    assert booth.done("Anna") == 0
    assert booth.done("Ben") == 3
    assert [v.voter for v in standing(read(folder / "votes.jsonl").votes)] == ["Ben"] * 3


def test_skipped_items_are_not_asked(folder: Path) -> None:
    booth = Booth(contest.read(folder))
    skipped: set[str] = set()
    while task := booth.next("Anna", skipped):
        assert task.item.id not in skipped
        skipped.add(task.item.id)
    assert len(skipped) == 24


def test_an_answer_of_an_older_page_keeps_its_sides(folder: Path) -> None:
    """New samples change the order, but not the meaning of an item on an open page."""
    (task,) = ask_all(Booth(contest.read(folder)), "Anna", 1)
    content = json.loads((folder / "contest.json").read_text())
    content["groups"][0]["contestants"].insert(0, "motion-50")
    content["videos"]["motion-50"] = content["videos"]["motion-25"]
    (folder / "contest.json").write_text(json.dumps(content))
    booth = Booth(contest.read(folder))
    second = booth.next("Anna")
    assert second is not None
    assert (second.item, second.question) == (task.item, "prompt")
    with pytest.raises(UsageError, match="no longer part of the contest"):
        booth.vote("Anna", "0" * 24, "quality", "left", "x")


def test_the_key_is_made_once_and_only_the_user_can_read_it(folder: Path) -> None:
    opened, keys = contest.read(folder), []
    threads = [threading.Thread(target=lambda: keys.append(Blind(opened).key)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(keys)) == 1
    assert (folder / KEY).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in folder.iterdir() if path.name.endswith(".tmp")] == []
    (folder / KEY).write_text("torn")
    with pytest.raises(RunError, match=r"vote.key is damaged"):
        Blind(opened)
