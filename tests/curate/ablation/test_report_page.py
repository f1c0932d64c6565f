"""The report's section on ablations in a real browser: answers, votes, samples; prompts remain text."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curate.dataset.run import Run
from curate.report import write as report
from tests.curate.ablation.made import PROMPTS, make, vote
from tests.page import chromium, opened_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

SECTION = "#ablation"


@pytest.fixture(scope="module")
def ablated(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with three ablations: one with votes, one without finished trainings, a damaged one."""
    run = tmp_path_factory.mktemp("ablated") / "run"
    shutil.copytree(finished, run)
    opened = make(run, samples=True)
    for voter in ("Anna", "Ben"):
        vote(opened, voter, "motion-50", "all", 30)
        vote(opened, voter, "motion-25", "motion-50", 6)
    unfinished = make(run, "unfinished", n=24)
    for path in (unfinished.folder / "judged").iterdir():
        path.unlink()
    (make(run, "damaged", n=24).folder / "plan.json").write_text("{")
    report.write(Run.open(run))
    return run


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as found:
        yield found


@pytest.mark.parametrize(
    ("width", "scheme"),
    [pytest.param(1280, "light", marks=pytest.mark.slow), (390, "dark")],
    ids=["wide light", "narrow dark"],
)
def test_the_section_shows_answers_votes_and_samples(
    ablated: Path, browser: "Browser", width: int, scheme: str, tmp_path: Path
) -> None:
    with opened_report(browser, ablated, viewport={"width": width, "height": 900}, color_scheme=scheme) as page:
        section = page.locator(SECTION)
        section.scroll_into_view_if_needed()
        # not innerText, which is empty for a card that the browser has not drawn yet (content-visibility)
        cards = section.locator(".measure h3").all_text_contents()
        assert cards == ["motion: drop 50 %", "idle: keep all"]
        text = section.text_content() or ""
        assert "people preferred motion-50 to dropping nothing in visual quality" in text
        assert "no difference" in text
        assert "keep:\n  motion: {above: 0." in text
        assert "motion: votes of people on visual quality" in text
        assert "72 votes of 2 voters" in text
        assert "No training can be compared yet." in text
        assert "damaged cannot be shown: " in text
        ranks = section.locator("details[open] table tbody tr td:first-child").all_text_contents()
        assert set(ranks) == {"motion-50", "motion-25", "all"}
        assert section.locator(".measure canvas").count() == 2
        while (closed := section.locator("details:not([open]) > summary")).count():
            closed.first.click()
        assert PROMPTS[1] in section.locator("td .text").all_text_contents()
        video = section.locator("td video").first
        video.scroll_into_view_if_needed()
        video.hover()
        page.wait_for_function("video => !video.paused && video.currentTime > 0", arg=video.element_handle())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        section.screenshot(path=tmp_path / f"{width}.png")
