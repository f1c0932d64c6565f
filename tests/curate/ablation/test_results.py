"""The folder of an ablation: its verdict from losses and votes, and damaged files."""

import json
from pathlib import Path

import pytest

from curate.ablation import results
from curate.ablation.report import ablations
from curate.ablation.results import Ablation, contest_of
from curate.ablation.sample_scores import add_scores
from curate.ablation.verdict import AxisAnswer
from curate.dataset.run import Run
from curate.errors import UsageError
from curate.voting import contest, votes
from tests.curate.ablation.made import PROMPTS, make, vote


def answers(opened: Ablation) -> dict[str, float]:
    return {one["axis"]: one["level"] for one in opened.verdict()["answers"]}


def test_losses_give_the_answer_and_its_rule_is_the_threshold_of_the_subset(tmp_path: Path) -> None:
    opened = make(tmp_path)
    verdict = opened.verdict()
    assert answers(opened) == {"motion": 25.0, "idle": 0.0}
    rule = next(arm.rule for arm in opened.arms if arm.name == "motion-25")
    assert verdict["keep"] == {"motion": {"above": pytest.approx(rule["above"], rel=1e-5)}}
    assert json.loads(json.dumps(verdict)) == verdict
    row = next(row for row in verdict["arms"] if row["arm"] == "motion-25")
    assert row["scores"] == {"clipsim": pytest.approx(0.2)}
    assert row["elsewhere"] == pytest.approx(-20, abs=2)
    assert verdict["cost"] == {"trainings": 21, "done": 21, "steps_s": 63.0, "steps": 80}


def test_votes_decide_only_when_the_difference_is_significant(tmp_path: Path) -> None:
    opened = make(tmp_path)
    vote(opened, "Anna", "motion-50", "all", 3)
    assert answers(opened)["motion"] == 25.0
    assert "no significant difference yet, motion-50 leads" in opened.people()[0]["summary"]
    for voter in ("Anna", "Ben", "Chloé"):
        vote(opened, voter, "motion-50", "all", 40)
    verdict = opened.verdict()
    motion = verdict["answers"][0]
    assert (motion["level"], motion["arm"]) == (50.0, "motion-50")
    assert motion["why"].startswith(
        "people preferred motion-50 to dropping nothing in visual quality; by held-out loss: dropping 25 %"
    )
    assert verdict["people"][0]["ratings"][0]["contestant"] == "motion-50"
    assert answers(opened)["idle"] == 0.0


def test_people_who_prefer_all_overrule_the_loss(tmp_path: Path) -> None:
    opened = make(tmp_path)
    for voter in ("Anna", "Ben", "Chloé"):
        vote(opened, voter, "all", "motion-25", 40)
    assert answers(opened)["motion"] == 0.0
    assert opened.verdict()["keep"] == {}
    assert (
        "people preferred dropping nothing to motion-25, which has the best held-out loss"
        in opened.verdict()["answers"][0]["why"]
    )


def test_elo_is_ignored_where_bradley_terry_disagrees(tmp_path: Path) -> None:
    opened = make(tmp_path)
    vote(opened, "Anna", "motion-50", "all", 60)  # only against the weak one
    vote(opened, "Anna", "motion-25", "motion-50", 6)
    (opinion,) = opened.people()
    assert opinion["ratings"][0]["contestant"] == "motion-50"
    assert ("motion-50", "motion-25") not in {(pair["a"], pair["b"]) for pair in opinion["apart"]}
    assert "Elo and Bradley-Terry disagree on other pairs" in opinion["summary"]


def test_a_voter_who_always_presses_left_and_a_torn_line_are_reported(tmp_path: Path) -> None:
    opened = make(tmp_path)
    vote(opened, "Lefty", "motion-50", "all", 30, left=True)
    with (opened.folder / votes.FILE).open("a") as file:
        file.write('{"voter": "Ann')
    (opinion,) = opened.people()
    assert "Lefty: always left" in opinion["summary"]
    assert "votes.jsonl" in opinion["summary"]
    assert opinion["ratings"][0]["wins"] == 30


def test_the_contest_has_no_duplicate_contestants(tmp_path: Path) -> None:
    opened = make(tmp_path, samples=True)
    read = contest.read(opened.folder)
    assert [group.name for group in read.groups] == ["motion", "idle"]
    assert read.groups[0].contestants == ("all", "motion-25", "motion-50")
    assert read.prompts == tuple(PROMPTS)
    assert len(list(read.comparisons())) == 2 * 3 * 2  # only the first seed has samples
    arms = [*opened.arms, opened.arms[1].__class__(**{**vars(opened.arms[1]), "name": "motion-26", "level": 26.0})]
    assert contest_of("x", arms, PROMPTS)["groups"][0]["contestants"] == ["all", "motion-25", "motion-50"]


def test_open_takes_the_newest_and_names_stay_inside_the_run(tmp_path: Path) -> None:
    make(tmp_path, "one", n=24)
    make(tmp_path, "two", n=24)
    assert Ablation.open(str(tmp_path)).name == "two"
    assert Ablation.open(str(tmp_path), "one").name == "one"
    with pytest.raises(UsageError, match=r"--name \.\./x: a name may have letters"):
        results.folder_of(str(tmp_path), "../x")


def test_the_report_has_every_ablation_and_the_problem_of_a_damaged_one(tmp_path: Path, finished: Path) -> None:
    run = Run.open(finished)
    run.root = str(tmp_path)
    assert ablations(run, str(tmp_path / "copies")) == []
    opened = make(tmp_path, samples=True)
    vote(opened, "Anna", "motion-50", "all", 4)
    broken = make(tmp_path, "broken", n=24)
    (broken.folder / "plan.json").write_text('{"version": 1, "arms": [1]}')
    shown = {one["name"]: one for one in ablations(run, str(tmp_path / "copies"))}
    assert shown["broken"]["problem"].startswith("broken cannot be shown: ")
    assert shown["tiny"]["problem"] is None
    files = shown["tiny"]["samples"]["files"]
    assert list(files)[:3] == ["all", "motion-25", "motion-50"]
    copied = {path.name for path in (tmp_path / "copies").iterdir()}
    assert copied == {file for own in files.values() for file in own if file}
    assert json.loads(json.dumps(shown)) == shown


def test_tables_and_contact_sheets_for_notebooks(tmp_path: Path, finished: Path) -> None:
    run = Run.open(finished)
    run.root = str(tmp_path)
    with pytest.raises(UsageError, match="has no ablation yet"):
        Ablation.open(run.root)
    make(tmp_path, samples=True)
    opened = Ablation.open(run.root, "tiny")
    table = opened.table().set_index("arm")
    assert list(table.index) == [arm.name for arm in opened.arms]
    assert table.loc["motion-25", "low"] < table.loc["motion-25", "change"] < table.loc["motion-25", "high"] < 0
    assert table.loc["motion-25", "to_random"] == pytest.approx(-20, abs=2)
    assert list(opened.answers()["level"]) == [25.0, 0.0]
    whole, some = opened.show(0), opened.show(1, arms=["all", "motion-25"])
    assert len(whole.png) > len(some.png) > 1000
    with pytest.raises(UsageError, match="has no sample of prompt 7"):
        opened.show(7)


def test_samples_are_scored_once_by_the_stages_of_the_run(tmp_path: Path, finished: Path) -> None:
    run = Run.open(finished)
    opened = make(tmp_path, samples=True)
    assert add_scores(run, opened) == 0  # the run has no aesthetic measure
    assert add_scores(run, opened, ["brightness", "missing"]) == 21
    again = Ablation.open(str(tmp_path))
    scores = again.judged["motion-25", 0]["scores"]
    assert set(scores) == {"clipsim", "brightness"}
    assert scores["brightness"] == pytest.approx(127, abs=8)  # noise
    assert "brightness" not in again.judged["motion-25", 1]["scores"]  # it has no samples
    table = again.table().set_index("arm")
    assert table.loc["all", "clipsim"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("side", "value", "wanted"),
    [("above", 0.1234567, 0.123456), ("below", 0.1234561, 0.123457), ("above", -2.0000009, -2.00001), ("below", 0.0, 0.0)],
)  # fmt: skip
def test_thresholds_are_rounded_so_that_no_trained_clip_is_dropped(side: str, value: float, wanted: float) -> None:
    (rule,) = results.rules_of([AxisAnswer("motion", 25.0, {side: value}, "motion-25", "")]).values()
    assert rule == {side: wanted}
