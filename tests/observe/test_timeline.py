"""Timelines: what is read from a trace, and the picture. The page is looked at in test_timeline_page.py."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest
from contexts import MAIN, go_to_main, start
from trace_events import trace_of

from greenctx import ContextSwitchingEnvironment, Trace
from greenctx._instruments import timeline as timeline_module
from greenctx._instruments.timeline import Timeline
from greenctx._instruments.timeline_svg import MANY, as_svg, in_words, nice_step
from greenctx.errors import InvalidTrace

SVG = "{http://www.w3.org/2000/svg}"


def event(phase: str, ts: float = 0, name: str = "active", tid: int = 1, **more: object) -> dict[str, object]:
    return {"ph": phase, "ts": ts, "name": name, "pid": 1, "tid": tid, **more}


def test_what_is_read(tmp_path: Path) -> None:
    """Rows are contexts, in their order; times begin with the first activity; calls know how deep they are."""
    events = [
        event("M", name="process_name", args={"name": "guest"}),
        event("M", name="thread_name", tid=2, args={"name": "1 worker"}),
        event("M", name="thread_name", args={"name": "0 main"}),
        event("M", name="process_labels", args={"labels": "x"}),
        event("C", 100, "counter", args={"value": 3}),
        event("i", 100.5, "created", tid=2, s="t", args={"by": 0, "name": "worker"}),
        event("X", 100, cat="context", dur=10, tts=3, tdur=7.5),
        event("X", 101, "inner", cat="host call", dur=2),
        event("X", 100.5, "outer", cat="host call", dur=9.5),
        event("X", 104, "again", cat="host call", dur=6),
        event("s", 110, "switch", id="1.1"),
        event("f", 110.002, "switch", tid=2, id="1.1"),
        event("X", 110.002, cat="context", dur=5, tid=2),
        event("s", 120, "switch", id="1.2"),
    ]
    path = tmp_path / "in.json"
    for text in (
        json.dumps(events),
        json.dumps({"traceEvents": events}),
        "[\n" + ",\n".join(map(json.dumps, events)),
        "[\n" + ",\n".join(map(json.dumps, events)) + ',\n{"ph": "X", "na',
        '{"traceEvents": [\n' + ",\n".join(map(json.dumps, events)) + ',\n{"ph": "X", "na',
    ):
        path.write_text(text)
        timeline = Timeline.read(path)
        assert timeline.title == "guest"
        main, worker = timeline.rows
        assert (main.name, worker.name) == ("0 main", "1 worker")
        assert main.active == [(0, 10)]
        assert (main.processor, worker.processor) == (7.5, None)
        assert main.calls == [(0.5, 10, "outer", 0), (1, 3, "inner", 1), (4, 10, "again", 1)]
        assert worker.marks == [(0.5, "created by 0")]
        assert timeline.switches == [(10, 0, 1)]
        assert timeline.duration == pytest.approx(15.002)
        assert as_svg(timeline).count('class="call"') == 3


def test_several_processes(tmp_path: Path) -> None:
    """Rows of several environments say which one they are of."""
    with Trace(tmp_path / "in.json", "name") as trace:
        for _ in range(2):
            env = ContextSwitchingEnvironment(instruments=[trace])
            env.run_main_context(start, env, go_to_main(env))
    timeline = Timeline.read(tmp_path / "in.json")
    names = [row.name for row in timeline.rows]
    assert names == ["name: 0 main", "name: 1 <lambda>", "name (2): 0 main", "name (2): 1 <lambda>"]
    assert timeline.title == "name, name (2)"


@pytest.mark.parametrize("text", ["[", "[]", '{"traceEvents": [', '{"traceEvents": [\n]}\n'])
def test_a_trace_without_activity(tmp_path: Path, text: str) -> None:
    """A program that was killed at once leaves one. It is drawn, with nothing in it."""
    path = tmp_path / "in.json"
    path.write_text(text)
    timeline = Timeline.read(path)
    assert timeline.rows == []
    assert timeline.as_html()
    assert as_svg(timeline)


@pytest.mark.parametrize("text", ["", "[\n{}\n{}\n", "[1]", "3", '{"traceEvents": 3}', "[\n{\n{}", '[{"ph": "X"}]'])
def test_what_cannot_be_read(tmp_path: Path, text: str) -> None:
    """`InvalidTrace` names the file and the reason."""
    (tmp_path / "in.json").write_text(text)
    with pytest.raises(InvalidTrace, match=r"in\.json: it is not "):
        Timeline.read(tmp_path / "in.json")


ODD: list[object] = [
    None,
    True,
    -1,
    3,
    10**400,
    1e308,
    -1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    [],
    [[1]],
    {},
    {"name": 3},
]


@pytest.mark.parametrize("phase", ["M", "X", "i", "s", "f"])
def test_odd_events(tmp_path: Path, phase: str) -> None:
    """Whatever stands in the place of a value, it is drawn or refused, and soon."""
    good = event("X", 100, cat="context", dur=10)
    for name in ("process_name", "thread_name", "thread_sort_index"):
        whole = event(phase, 100, name, cat="context", dur=10, tdur=1, id=1, args={"name": "n", "sort_index": 1})
        for key in [*whole]:
            for value in ODD:
                (tmp_path / "in.json").write_text(json.dumps([good, whole | {key: value}]))
                with suppress(InvalidTrace):
                    timeline = Timeline.read(tmp_path / "in.json")
                    assert len(as_svg(timeline)) < 10_000
                    assert len(timeline.as_html()) < 50_000


def test_an_odd_event_is_named(tmp_path: Path) -> None:
    """The reason says which value is wrong, and none of Python's exceptions."""
    path = tmp_path / "in.json"
    for odd, reason in (
        (event("X", 1e308, cat="context", dur=1), "'ts' of an event is 1e+308, not a time in microseconds"),
        (event("i", 1, args=[1]), "'args' of an event is [1], not an object"),
        (event("X", 1, cat="context"), "'dur' of an event is missing, not a duration in microseconds"),
        (event("M", name="thread_name", args={"name": 3}), "'name' of an event is 3, not a thread_name"),
    ):
        path.write_text(json.dumps([event("X", 100, cat="context", dur=10), odd]))
        with pytest.raises(InvalidTrace) as raised:
            Timeline.read(path)
        assert raised.value.reason == f"it is not a trace of contexts: {reason}"


def test_traces_that_nothing_should_be_read_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without an end, brackets without an end, and more than a limit are refused with one reason each."""
    path = tmp_path / "in.json"
    if Path("/dev/zero").exists():
        with pytest.raises(InvalidTrace, match="it is not in the Trace Event format"):
            Timeline.read("/dev/zero")
    path.write_text("[" * 200_000)
    with pytest.raises(InvalidTrace, match="it is not in the Trace Event format"):
        Timeline.read(path)
    monkeypatch.setattr(timeline_module, "MAX_BYTES", 5000)
    path.write_text(" " * 5001)
    with pytest.raises(InvalidTrace, match="it has more than 5000 bytes"):
        Timeline.read(path)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """Missing files, and binary files, cannot be read either."""
    with pytest.raises(InvalidTrace, match=r"in\.json: No such file or directory"):
        Timeline.read(tmp_path / "in.json")
    (tmp_path / "in.json").write_bytes(b"\xff")
    with pytest.raises(InvalidTrace, match=r"in\.json: it is not text"):
        Timeline.read(tmp_path / "in.json")


@pytest.mark.parametrize(("contexts", "switches"), [(1, 10), (5, 200), (50, 5000)])
def test_the_picture(tmp_path: Path, contexts: int, switches: int) -> None:
    """The picture is XML with a row for each context, a bar for each time of activity, and an arrow for each switch."""
    timeline = Timeline.read(trace_of(tmp_path / "in.json", contexts, switches))
    root = ElementTree.fromstring(as_svg(timeline))
    arrows = root.findall(f".//{SVG}path[@class='switch']")
    assert len(arrows) == len(timeline.switches) == switches + 2 * min(contexts, switches // 2)
    group = root.find(f"{SVG}g")
    assert group is not None
    assert group.get("class") == ("many" if len(arrows) > MANY else "few")
    texts = [element.text for element in root.findall(f"{SVG}text")]
    assert texts[0] == "a <program>"
    assert [text for text in texts if text and "worker" in text] == [f"{n + 1} worker" for n in range(contexts)]
    bars = [bar for bar in root.findall(f"{SVG}rect") if bar.get("fill", "").startswith("hsl")]
    assert len(bars) == len(arrows) + 1
    width = float(root.get("width") or 0)
    for bar in bars:
        assert 0 <= float(bar.get("x") or -1) <= width
        assert 0 < float(bar.get("width") or 0) <= width
        title = bar.find(f"{SVG}title")
        assert title is not None
        assert re.search(r"^\d+ \w+: active for .* from ", title.text or "")


def test_names_cannot_break_out(tmp_path: Path) -> None:
    """Whatever a guest's functions are called, it is text in the page and in the picture."""

    def entrypoint() -> None:
        env.switch_context(MAIN)

    name = "</script><script>alert(1)</script>\x00\x1b&<!--"
    entrypoint.__name__ = name
    with Trace(tmp_path / "in.json", name) as trace:
        env = ContextSwitchingEnvironment(instruments=[trace])
        env.run_main_context(lambda: start(env, entrypoint))
    timeline = Timeline.read(tmp_path / "in.json")
    ElementTree.fromstring(as_svg(timeline))
    page = timeline.as_html()
    assert page.count("<script") == page.count("</script>") == 2
    [data] = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert json.loads(data)["title"] == name


def test_the_page_asks_nothing_of_the_network(tmp_path: Path) -> None:
    """There is no address in it, and nothing that loads anything."""
    page = Timeline.read(trace_of(tmp_path / "in.json", 1, 10)).as_html()
    assert not re.search(r"https?:|src=|href=|@import|url\(|fetch|XMLHttpRequest", page)


def test_scales() -> None:
    """Steps are round numbers; times are told in fitting units."""
    assert [nice_step(duration, 10) for duration in (0.5, 90, 101, 250_000)] == [0.05, 10, 20, 50_000]
    assert [in_words(time) for time in (0, 0.25, 5, 1234.5, 2e6)] == ["0", "250 ns", "5 µs", "1.234 ms", "2 s"]
