"""The timeline's page in a headless browser: what it draws, hovering, zooming, moving.

Needs playwright and a Chromium, which is looked for on the PATH; GREENCTX_SCREENSHOTS names a directory for pictures.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from contexts import MAIN, start
from guests.embedding import IMPORTS
from processes import run_greenctx
from trace_events import trace_of

from greenctx import ContextSwitchingEnvironment, Trace
from greenctx._instruments.timeline import Timeline

if TYPE_CHECKING:
    from collections.abc import Iterator

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
if BROWSER is None:
    pytest.skip("no Chromium is installed", allow_module_level=True)

LEFT, TOP, HEIGHT = 170, 24, 22  # as in timeline.html
SIZES = [(1, 10), (5, 200), (10, 5000), (50, 5000)]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class Page:
    """A timeline, open in the browser."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.page = browser.new_page(viewport={"width": 1200, "height": 800})
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("requestfailed", lambda request: self.errors.append(request.url))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())
        box = self.page.locator("#chart").bounding_box()
        assert self.requests == [path.as_uri()]
        self.left, self.top, self.width = box["x"], box["y"], box["width"]

    def view(self) -> tuple[float, float]:
        """From when to when it shows."""
        chart = self.page.locator("#chart")
        return float(chart.get_attribute("data-from")), float(chart.get_attribute("data-to"))

    def shows_all_of(self, timeline: Timeline) -> bool:
        begin, end = self.view()
        return begin == 0 and abs(end - timeline.duration) < 0.001

    def hover(self, time: float, row: int) -> str:
        begin, end = self.view()
        x = self.left + LEFT + (time - begin) / (end - begin) * (self.width - LEFT - 12)
        self.page.mouse.move(x, self.top + TOP + HEIGHT * row + HEIGHT / 2)
        tip = self.page.locator("#tip")
        return tip.inner_text() if tip.is_visible() else ""

    def ink(self) -> int:
        """How many pixels of the chart are not empty."""
        count: int = self.page.evaluate(
            """() => {
                const chart = document.getElementById("chart")
                const pixels = chart.getContext("2d").getImageData(0, 0, chart.width, chart.height).data
                let count = 0
                for (let i = 3; i < pixels.length; i += 4) count += pixels[i] > 0
                return count
            }"""
        )
        return count

    def screenshot(self, name: str) -> None:
        if directory := os.environ.get("GREENCTX_SCREENSHOTS"):
            self.page.screenshot(path=Path(directory) / f"{name}.png")


@pytest.mark.parametrize(("contexts", "switches"), SIZES)
def test_draws_hovers_and_zooms(browser: Any, tmp_path: Path, contexts: int, switches: int) -> None:
    """All of a trace is drawn at once; hovering tells what is there; the wheel zooms to the mouse; the rest is left."""
    timeline = Timeline.read(trace_of(tmp_path / "in.json", contexts, switches))
    (tmp_path / "page.html").write_text(timeline.as_html())
    page = Page(browser, tmp_path / "page.html")
    page.screenshot(f"{contexts}-{switches}")
    assert page.page.title() == "a <program>"
    assert page.shows_all_of(timeline)
    assert f"{len(timeline.switches)} of {len(timeline.switches)} switches" in page.page.locator("#view").inner_text()
    assert page.ink() > 3000

    # The longest time that a context other than main, of those in the window, was active; and the middle of it.
    row, (start, end) = max(
        ((number, bar) for number, one in enumerate(timeline.rows) for bar in one.active if 0 < number < 30),
        key=lambda found: found[1][1] - found[1][0],
    )
    middle = (start + end) / 2
    page.hover(middle, row)
    for _ in range(60):
        before = page.view()
        page.hover(middle, row)
        page.page.mouse.wheel(0, -100)
        page.page.wait_for_function(
            "length => { const at = document.getElementById('chart').dataset; return at.to - at.from < length }",
            arg=(before[1] - before[0]) * 0.99,
        )
        begin, finish = page.view()
        assert begin <= middle <= finish
        assert finish - begin < before[1] - before[0]
        if finish - begin < 4 * (end - start):
            break
    page.screenshot(f"{contexts}-{switches}-zoomed")
    text = page.hover(middle, row)
    assert text.splitlines()[0].startswith(f"{timeline.rows[row].name}: active for ")
    assert page.ink() > 1000

    # Dragging and keys move; the double click shows all.
    begin, finish = page.view()
    page.page.mouse.down()
    page.page.mouse.move(page.left + page.width / 2 - 100, page.top + 100)
    page.page.mouse.up()
    if finish < timeline.duration:
        assert page.view() != (begin, finish)
    moved = page.view()
    page.page.keyboard.press("ArrowLeft")
    assert page.view()[0] <= moved[0]
    page.page.keyboard.press("+")
    assert page.view()[1] - page.view()[0] < moved[1] - moved[0]
    page.page.mouse.dblclick(page.left + 600, page.top + 40)
    assert page.shows_all_of(timeline)
    assert page.errors == []
    page.page.close()


def test_a_row_and_an_arrow_and_a_call_are_told(browser: Any, tmp_path: Path) -> None:
    """Over a name it is the sum; over an arrow from where to where; over a call its name; over a mark what happened."""
    guest = f"""(module {IMPORTS}
      (memory (export "memory") 1) (table (export "__indirect_function_table") 2 funcref) (elem (i32.const 1) $worker)
      (func $worker (loop $again (drop (call $switch (i64.const 0))) (br $again)))
      (func (export "_start") (local $n i32)
        (drop (call $create (i32.const 0) (i32.const 1)))
        (loop $again
          (drop (call $switch (i64.const 1)))
          (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 5))))))"""
    (tmp_path / "guest.wat").write_text(guest)
    trace, output = tmp_path / "in.json", tmp_path / "page.html"
    assert run_greenctx("run", "--trace", trace, tmp_path / "guest.wat").returncode == 0
    assert run_greenctx("timeline", trace, "-o", output).returncode == 0
    timeline = Timeline.read(trace)
    page = Page(browser, output)
    page.page.mouse.move(page.left + 20, page.top + TOP + HEIGHT * 1.5)
    total = len(timeline.rows[1].active)
    assert page.page.locator("#tip").inner_text().startswith(f"1 worker\nactive {total} times, for ")
    time, out, into = timeline.switches[0]
    assert (out, into) == (0, 1)
    assert "0 main → 1 worker at " in page.hover(time, 0)
    start, end, name, _ = max(timeline.rows[0].calls, key=lambda call: call[1] - call[0])
    assert f"in {name}: " in page.hover((start + end) / 2, 0)
    [created] = [when for when, text in timeline.rows[1].marks if text.startswith("created")]
    assert "created by 0 at " in page.hover(created, 1)
    assert page.hover(timeline.duration, 7) == ""
    assert page.errors == []
    page.page.close()


def test_searched_and_clicked(browser: Any, tmp_path: Path) -> None:
    """Hits of the search are counted, and visited in the order of time; a click shows all facts of a context."""

    def other() -> None:
        env.switch_context(MAIN)

    def main() -> None:
        for entrypoint in (other, other, lambda: env.switch_context(MAIN)):
            start(env, entrypoint)

    with Trace(tmp_path / "in.json") as trace:
        env = ContextSwitchingEnvironment(instruments=[trace])
        env.run_main_context(main)
    timeline = Timeline.read(tmp_path / "in.json")
    (tmp_path / "page.html").write_text(timeline.as_html())
    page = Page(browser, tmp_path / "page.html")
    found, details, search = (page.page.locator(name) for name in ("#found", "#details", "#search"))
    assert "in a host call" in page.page.locator("#legend").inner_text()
    assert details.inner_text() == ""
    search.fill("OTHER")
    assert found.inner_text() == "2 found"
    for place, row in ((1, 1), (2, 2), (1, 1)):
        search.press("Enter")
        assert found.inner_text() == f"{place} of 2"
        begin, end = page.view()
        assert begin <= timeline.rows[row].active[0][0] <= end
        text = details.inner_text()
        assert f"{row} other: active {len(timeline.rows[row].active)} times, for " in text
        assert " in all, of which " in text
        assert "created by 0 at " in text
    page.screenshot("found")
    search.press("0")  # is text there, and not all of the timeline
    assert found.inner_text() == "0 found"
    search.fill("")
    assert found.inner_text() == ""
    page.page.mouse.click(page.left + 20, page.top + TOP + HEIGHT * 3.5)
    assert details.inner_text().startswith("3 <lambda>: active ")
    assert page.errors == []
    page.page.close()


def test_resized_and_dark(browser: Any, tmp_path: Path) -> None:
    """The page fits its window, and the colours that the reader prefers."""
    (tmp_path / "page.html").write_text(Timeline.read(trace_of(tmp_path / "in.json", 3, 40)).as_html())
    page = Page(browser, tmp_path / "page.html")
    page.page.set_viewport_size({"width": 700, "height": 500})
    page.page.wait_for_function("document.getElementById('chart').width == 700")
    page.page.emulate_media(color_scheme="dark")
    page.page.reload()
    assert page.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(27, 29, 33)"
    page.screenshot("dark")
    assert page.ink() > 1000
    assert page.errors == []
    page.page.close()
