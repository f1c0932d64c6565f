"""The voting page in a real browser: votes by keyboard, several voters, a killed server, a packed folder, untrusted text."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from curate.voting import contest, pack, votes
from curate.voting.booth import Booth
from curate.voting.votes import Vote
from tests.curate.report.test_report_page import CONTRAST, until
from tests.curate.voting.contests import CONTESTANTS, make_contest, served
from tests.curate.voting.test_server import process
from tests.page import chromium, file_server

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

KEYS = ("ArrowLeft", "ArrowRight", "ArrowDown", "t")
CHOICE = {"ArrowLeft": "left", "ArrowRight": "right", "ArrowDown": "tie", "t": "tie"}
NASTY = (
    "\"quotes\" 'and' `ticks` & <b>brackets</b> <img src=x onerror=alert(1)>",
    "<script>document.title = 'taken over'</script></p></section><h1>big",
    "🎬👩‍🚀 שלום עולם, a bird ‏مرحبا‏ on a branch",
    "a very " + "long" * 2500,
)


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as found:
        yield found


@contextmanager
def window(browser: "Browser", **options: Any) -> Iterator["BrowserContext"]:
    """A new browser context. Afterwards checks: no console message, no dialog, no request to other hosts, no contestant in an address."""
    messages: list[str] = []
    requested: list[str] = []
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
    context.on("console", lambda message: messages.append(message.text))
    context.on("weberror", lambda error: messages.append(str(error.error)))
    context.on("dialog", lambda dialog: messages.append(dialog.message))
    context.on("request", lambda request: requested.append(request.url))
    yield context
    context.close()
    assert not messages
    assert [url for url in requested if not url.startswith(("http://127.0.0.1:", "file://", "blob:", "data:"))] == []
    assert not [name for name in CONTESTANTS if any(name in url for url in requested)]


def start(context: "BrowserContext", url: str, voter: str) -> "Page":
    page = context.new_page()
    page.goto(url)
    page.fill("#name", voter)
    page.press("#name", "Enter")
    until(page, "document.body.dataset.ready === 'yes'")
    return page


def press(page: "Page", key: str, done: int) -> None:
    """Presses a key and waits until the page confirms `done` answers and is ready for the next one."""
    page.keyboard.press(key)
    until(page, "n => document.body.dataset.done === String(n)", done)
    until(page, "document.body.dataset.ready === 'yes' || !byId('end').hidden")


def found(folder: Path) -> list[Vote]:
    read = votes.read(folder / votes.FILE)
    assert not read.troubles
    return list(read.votes)


def test_votes_by_keyboard_are_recorded_and_a_reload_resumes(browser: "Browser", tmp_path: Path) -> None:
    folder = make_contest(tmp_path)
    with served(folder) as url, window(browser) as context:
        page = start(context, url, "Anna 🎬")
        seen: list[tuple[str, str, str]] = []
        for i in range(20):
            key, content = KEYS[i % 4], page.content()
            assert not [name for name in CONTESTANTS if name in content]
            assert page.evaluate("[...document.querySelectorAll('video')].every((video) => video.muted)")
            seen.append((page.inner_text("#prompt"), page.get_attribute("#booth", "data-question") or "", CHOICE[key]))
            press(page, key, i + 1)
            assert page.inner_text("#count") == f"{i + 1} of 24 answers"
            assert len(found(folder)) == i + 1  # shown as saved when it is on the disk
        prompts = contest.read(folder).prompts
        assert [(prompts[v.prompt], v.question, v.choice) for v in found(folder)] == seen
        assert {v.voter for v in found(folder)} == {"Anna 🎬"}
        shown = page.inner_text("#prompt"), page.evaluate("state.task")
        page.reload()
        until(page, "document.body.dataset.ready === 'yes'")
        assert (page.inner_text("#prompt"), page.evaluate("state.task")) == shown
        for i in range(20, 24):
            press(page, "ArrowLeft", i + 1)
        assert page.inner_text("#summary") == "All 24 answers are saved."
        assert page.is_hidden("#booth")
    lefts = Counter((*v.what[3:], v.left) for v in found(folder) if v.question == "quality")
    assert set(lefts.values()) == {2}  # of four comparisons of each pair


def test_undo_skip_pause_and_stop(browser: "Browser", tmp_path: Path) -> None:
    folder = make_contest(tmp_path)
    with served(folder) as url, window(browser) as context:
        page = start(context, url, "Anna")
        first = page.evaluate("state.task")
        assert page.is_disabled("#booth .undo")
        press(page, "ArrowLeft", 1)
        assert page.inner_text("#confirmed") == "Saved: left."
        press(page, "ArrowRight", 2)
        second = page.evaluate("state.task.item")
        press(page, "u", 1)
        press(page, "Backspace", 0)
        assert page.evaluate("state.task") == first
        page.click("[data-choice=tie]")
        until(page, "document.body.dataset.done === '1' && document.body.dataset.ready === 'yes'")
        page.keyboard.press("s")
        until(page, "item => state.task.item !== item && document.body.dataset.ready === 'yes'", first["item"])
        assert page.evaluate("state.task.item") == second
        page.keyboard.press("Space")
        until(page, "pair.both.every((video) => video.paused)")
        page.keyboard.press("Space")
        until(page, "pair.both.some((video) => !video.paused)")
        page.keyboard.down("Control")
        page.keyboard.press("ArrowLeft")
        page.keyboard.up("Control")
        page.click("#enough")
        page.keyboard.press("ArrowLeft")
        assert page.inner_text("#summary").startswith("1 of 24 answers are saved.")
        page.click("#continue")
        assert page.evaluate("state.task.item") == second
        page.click("#change")
        assert page.is_visible("#ask")
        page.fill("#name", "Ben")
        page.press("#name", "Enter")
        until(page, "document.body.dataset.ready === 'yes' && state.done === 0")
    assert [v.choice for v in found(folder)] == ["left", "right", "undone", "undone", "tie"]


def test_an_invalid_name_is_asked_again(browser: "Browser", tmp_path: Path) -> None:
    folder = make_contest(tmp_path / "run", prompts=["a"])
    pack.pack(Booth(contest.read(folder)), tmp_path / "packed")
    context = browser.new_context()  # without the check of the console, which logs the refusal
    with served(folder) as url:
        for where in (url, (tmp_path / "packed" / "index.html").as_uri()):
            page = context.new_page()
            page.goto(where)
            for name, reason in [
                ("x" * 10_000, "the maximum is 100"),
                (" ", "needs a name"),
                ("a\u202eb", "invisible characters"),
            ]:
                page.fill("#name", name)
                page.press("#name", "Enter")
                until(page, "reason => byId('problem').textContent.includes(reason)", reason)
                assert page.inner_text("#problem").startswith("Not saved: ")
                assert page.is_visible("#ask")
            page.fill("#name", "Ben")
            page.press("#name", "Enter")
            until(page, "document.body.dataset.ready === 'yes' && byId('message').hidden")
    context.close()


def loops(page: "Page", n: int) -> list[float]:
    """Waits until the videos have played n times and returns samples of the offset between them, in seconds."""
    apart: list[float] = []
    ends, before, deadline = 0, 0.0, time.monotonic() + 120
    while ends < n:
        assert time.monotonic() < deadline
        left, right = page.evaluate("pair.both.map((video) => video.currentTime)")
        apart.append(abs(left - right))
        ends += left < before
        before = left
        page.wait_for_timeout(40)
    return apart


def test_videos_play_synchronized_and_repeat(browser: "Browser", tmp_path: Path) -> None:
    with served(make_contest(tmp_path)) as url, window(browser) as context:
        page = start(context, url, "Anna")
        apart = sorted(loops(page, 2))
        assert apart[len(apart) // 2] < 0.2


@pytest.mark.slow  # the packed page is tested from a disk below
def test_a_packed_folder_plays_from_a_file_server(browser: "Browser", tmp_path: Path) -> None:
    pack.pack(Booth(contest.read(make_contest(tmp_path / "run"))), tmp_path / "packed")
    with file_server(tmp_path / "packed") as url, window(browser) as context:
        page = start(context, url, "Anna")
        press(page, "ArrowLeft", 1)
        loops(page, 2)


def test_two_voters_at_once_lose_no_vote(browser: "Browser", tmp_path: Path) -> None:
    folder = make_contest(tmp_path)
    names = ("Anna/../..", "<b>Ben</b>")
    with served(folder) as url, window(browser) as one, window(browser) as two, window(browser) as three:
        pages = [start(context, url, name) for context, name in zip((one, two), names, strict=True)]
        assert [page.inner_text("#voter") for page in pages] == list(names)
        for i in range(6):
            for page in pages:
                page.keyboard.press("ArrowLeft")  # both pages before waiting for either
            for page in pages:
                until(page, "n => document.body.dataset.done === String(n)", i + 1)
                until(page, "document.body.dataset.ready === 'yes'")
        for page in pages:  # after a reload no question is repeated
            page.reload()
            until(page, "document.body.dataset.ready === 'yes' && document.body.dataset.done === '6'")
        assert Counter(v.voter for v in found(folder)) == dict.fromkeys(names, 6)
        assert len({(v.voter, v.what, v.question) for v in found(folder)}) == 12
        requested = {
            v.what for v in found(folder)
        }  # both may have started with the same comparison; a later voter starts with unvoted ones
        late = start(three, url, "Cleo")
        for i in range(6):
            press(late, "ArrowLeft", i + 1)
        theirs = {v.what for v in found(folder) if v.voter == "Cleo"}
    assert len(theirs) == 3
    assert theirs.isdisjoint(requested)
    assert [path.name for path in folder.parent.iterdir()] == ["first"]


def test_a_killed_server_loses_no_confirmed_vote_and_the_page_resends_the_rest(
    browser: "Browser", tmp_path: Path
) -> None:
    folder = make_contest(tmp_path / "run")
    context = browser.new_context()
    with process(tmp_path / "run", "--port", "0") as (child, url):
        page = start(context, url, "Anna")
        for i in range(5):
            press(page, "ArrowRight", i + 1)
        child.send_signal(signal.SIGKILL)
        child.wait(20)
    assert len(found(folder)) == 5
    page.keyboard.press("ArrowLeft")
    until(page, "!byId('again').hidden")
    message = "The voting server does not answer. Your last answer is kept on this page and sent again until the server answers."
    assert page.inner_text("#problem") == message
    assert page.inner_text("#count") == "5 of 24 answers"
    with served(folder, urlsplit(url).port or 0) as again:
        assert again == url
        page.reload()  # the answer survives a reload
        until(page, "document.body.dataset.done === '6' && document.body.dataset.ready === 'yes'")
        assert page.is_hidden("#message")
        press(page, "t", 7)
    context.close()
    assert [v.choice for v in found(folder)] == ["right"] * 5 + ["left", "tie"]


def test_a_packed_folder_gives_a_file_whose_votes_are_imported_once(browser: "Browser", tmp_path: Path) -> None:
    folder = make_contest(tmp_path / "run", prompts=["a red ball", *NASTY[:3]])
    pack.pack(Booth(contest.read(folder)), tmp_path / "packed")
    with window(browser) as context:
        page = start(context, (tmp_path / "packed" / "index.html").as_uri(), "Anna/✓")
        for i in range(5):
            press(page, KEYS[i % 4], i + 1)
        page.reload()
        until(page, "document.body.dataset.ready === 'yes' && document.body.dataset.done === '5'")
        press(page, "u", 4)
        press(page, "ArrowRight", 5)
        page.click("#enough")
        with page.expect_download() as saved:
            page.click("#end .download")
        assert saved.value.suggested_filename == "votes-Anna_.jsonl"
        file = tmp_path / "votes-Anna_.jsonl"
        saved.value.save_as(file)
        assert not [name for name in CONTESTANTS if name in file.read_text() or name in page.content()]
        other = start(context, (tmp_path / "packed" / "index.html").as_uri(), "Ben")
        assert other.inner_text("#count") == "0 of 24 answers"
    assert votes.import_votes(folder, file) == votes.Imported(7, 0)
    assert votes.import_votes(folder, file) == votes.Imported(0, 7)
    assert [v.choice for v in votes.standing(found(folder))] == ["left", "right", "tie", "tie", "right"]
    assert {v.voter for v in found(folder)} == {"Anna/✓"}
    assert Booth(contest.read(folder)).next("Anna/✓") is not None


def test_a_packed_folder_shows_every_comparison_with_balanced_sides(browser: "Browser", tmp_path: Path) -> None:
    folder = make_contest(tmp_path / "run")
    booth = Booth(contest.read(folder))
    pack.pack(booth, tmp_path / "packed")
    with window(browser) as context:
        page = context.new_page()
        page.goto((tmp_path / "packed" / "index.html").as_uri())
        orders = set()
        for voter in ("Anna", "Ben", "Eve", "Kim"):
            requested = page.evaluate(
                """async (voter) => {
                  const requested = [];
                  for (let { task } = await booth.ask("start", { voter }); task;) {
                    requested.push([task.item, task.question]);
                    const request = { voter, id: new_id(), item: task.item, question: task.question, choice: "left" };
                    ({ task } = await booth.ask("vote", request));
                  }
                  return requested;
                }""",
                voter,
            )
            assert len(requested) == 24
            items = [booth.blind.items[item] for item, _ in requested[::2]]
            assert set(Counter((i.comparison.a, i.comparison.b, i.left) for i in items).values()) == {2}
            orders.add(str(requested))
        assert len(orders) == 4


def test_untrusted_prompts_appear_as_text(browser: "Browser", tmp_path: Path) -> None:
    folder = make_contest(tmp_path, contestants=CONTESTANTS[:2], prompts=NASTY)
    with served(folder) as url, window(browser) as context:
        page = start(context, url, NASTY[1][:100])
        assert page.inner_text("#voter") == " ".join(NASTY[1][:100].split())
        seen = set()
        for i in range(8):
            seen.add(page.evaluate("byId('prompt').textContent"))
            assert page.locator(".prompt img, .prompt script, .prompt b, #voter *").count() == 0
            for width in (390, 1280):
                page.set_viewport_size({"width": width, "height": 800})
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
                box = page.locator(".answers").bounding_box()
                assert box
                assert box["y"] + box["height"] <= 800
            press(page, "ArrowLeft", i + 1)
        assert seen == set(NASTY)
        assert page.title() == "rushes vote"


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        (390, "dark"),
        pytest.param(390, "light", marks=pytest.mark.slow),
        pytest.param(1280, "dark", marks=pytest.mark.slow),
        pytest.param(1280, "light", marks=pytest.mark.slow),
    ],
)
def test_it_is_readable_at_any_width_and_in_the_dark(
    browser: "Browser", tmp_path: Path, width: int, scheme: Any
) -> None:
    folder = make_contest(tmp_path, contestants=CONTESTANTS[:2], prompts=["a red ball"])
    size = {"width": width, "height": 800}
    with served(folder) as url, window(browser, viewport=size, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(url)
        for selector in ("#ask h1", "#ask .note", "#who button", "#name"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, (selector, scheme)
        page.fill("#name", "Anna")
        page.press("#name", "Enter")
        until(page, "document.body.dataset.ready === 'yes'")
        press(page, "ArrowLeft", 1)
        page.evaluate("report('something went wrong', true)")
        selectors = (
            "#problem",
            "#which",
            "#question",
            "#meaning",
            "#prompt",
            "#prompt-title",
            "#count",
            "#confirmed",
            "kbd",
        )
        for selector in (*selectors, ".answers button", ".tools button", "#voter", "#change"):
            assert page.evaluate(CONTRAST, selector) >= 4.5, (selector, scheme)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        left, right = (page.locator(side).bounding_box() for side in ("#left", "#right"))
        assert left
        assert right
        assert (left["y"], left["width"]) == (right["y"], right["width"])
        assert left["x"] + left["width"] <= right["x"]


def test_an_unplayable_video_can_be_skipped(browser: "Browser", tmp_path: Path) -> None:
    folder = make_contest(tmp_path, contestants=CONTESTANTS[:2], prompts=["a", "b"])
    first = Booth(contest.read(folder)).next("Anna")
    assert first is not None
    c = first.item.comparison
    (folder / "samples" / f"{first.item.right}-s0" / f"{c.prompt:02}.mp4").write_text("no video")
    with served(folder) as url, window(browser) as context:
        page = context.new_page()
        page.goto(url)
        page.fill("#name", "Anna")
        page.press("#name", "Enter")
        until(
            page, "byId('problem').textContent === 'The right video cannot be played in this browser: skip this pair.'"
        )
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("s")
        until(page, "document.body.dataset.ready === 'yes'")
        assert page.is_hidden("#message")
        press(page, "ArrowLeft", 1)
        press(page, "ArrowLeft", 2)
        assert page.inner_text("#summary").startswith("2 of 4 answers are saved. You skipped some pairs")
    assert {v.prompt for v in found(folder)} == {1 - c.prompt}
