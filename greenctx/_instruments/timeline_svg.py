"""A timeline as an SVG picture. It needs no script: titles describe what is under the mouse."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from greenctx._instruments.timeline import Row, Timeline

WIDTH = 1200
LEFT, RIGHT, TOP, BOTTOM = 150, 16, 40, 12
HEIGHT = 22
"""The height of a row."""
BAR = 14
"""The height of a bar in its row."""
MANY = 400
"""If there are more arrows than this, all are drawn faintly."""
_STYLE = """
text { font: 11px system-ui, sans-serif; fill: #333 }
.title { font-weight: 600; font-size: 13px }
.grid { stroke: #e4e4e4 } .call { fill: #0004 } .mark { fill: #111 } .failed { fill: #c00 }
.switch { stroke: #555; fill: none; marker-end: url(#head) } .many .switch { opacity: .15; marker-end: none }
"""


def as_svg(timeline: Timeline) -> str:
    """Draw the timeline, with one bar for each time that a context was active."""
    return "\n".join([*_lines(timeline), "</svg>", ""])


def colour(row: int) -> str:
    """Return a colour that differs from those of the rows beside it; main is grey."""
    return f"hsl({row * 137 % 360} 55% 62%)" if row else "hsl(215 15% 62%)"


def nice_step(duration: float, most: int) -> float:
    """Return a round number of microseconds that fits into the duration at most ``most`` times."""
    step = 10.0**-3
    while True:
        for factor in (1, 2, 5):
            if duration <= step * factor * most:
                return step * factor
        step *= 10


def in_words(microseconds: float) -> str:
    """Return the time in a fitting unit."""
    for unit, size in (("s", 1e6), ("ms", 1e3), ("µs", 1.0)):
        if abs(microseconds) >= size:
            return f"{microseconds / size:.4g} {unit}"
    return f"{microseconds * 1e3:.4g} ns" if microseconds else "0"


def _lines(timeline: Timeline) -> Iterator[str]:
    height = TOP + HEIGHT * len(timeline.rows) + BOTTOM
    scale = (WIDTH - LEFT - RIGHT) / (timeline.duration or 1)
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    yield f"<style>{_STYLE}</style>"
    yield '<defs><marker id="head" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="5" markerHeight="5" orient="auto">'
    yield '<path d="M0 0 6 3 0 6z" fill="#555"/></marker></defs>'
    yield f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>'
    yield f'<text class="title" x="8" y="15">{_text(timeline.title)}</text>'
    step = nice_step(timeline.duration, 10)
    for tick in range(int(timeline.duration / step) + 1):
        x = _round(LEFT + tick * step * scale)
        yield f'<path class="grid" d="M{x} {TOP - 4}V{height - BOTTOM}"/>'
        yield f'<text x="{x}" y="{TOP - 8}" text-anchor="middle">{in_words(tick * step)}</text>'
    rows = [line for number, row in enumerate(timeline.rows) for line in _row(number, row, scale)]
    many = len(timeline.switches) > MANY
    if not many:
        yield from rows
    yield f'<g class="{"many" if many else "few"}">'
    for time, out, into in timeline.switches:
        x = _round(LEFT + time * scale)
        down = into > out
        begin, end = _middle(out), _middle(into) + (-BAR / 2 if down else BAR / 2)
        title = f"{timeline.rows[out].name} → {timeline.rows[into].name} at {in_words(time)}"
        yield f'<path class="switch" d="M{x} {begin}V{end}"><title>{_text(title)}</title></path>'
    yield "</g>"
    if many:  # arrows too many to tell apart go below the bars
        yield from rows


def _row(number: int, row: Row, scale: float) -> Iterator[str]:
    top = _middle(number) - BAR / 2
    yield f'<text x="8" y="{top + 11}">{_text(row.name if len(row.name) < 22 else row.name[:20] + "…")}</text>'
    for start, end in row.active:
        title = f"{row.name}: active for {in_words(end - start)} from {in_words(start)}"
        yield f'{_bar(start, end, scale, top, BAR)} fill="{colour(number)}"><title>{_text(title)}</title></rect>'
    for start, end, name, depth in row.calls:
        shift = min(3 + 2 * depth, BAR - 3)
        title = f"{name}: {in_words(end - start)} from {in_words(start)}"
        yield f'{_bar(start, end, scale, top + shift, BAR - shift)} class="call"><title>{_text(title)}</title></rect>'
    for time, text in row.marks:
        x = _round(LEFT + time * scale)
        kind = "failed" if "failed" in text or "returned" in text else "mark"
        mark = f'<path class="{kind}" d="M{x} {top - 1}l-2.5 -3h5z">'
        yield f"{mark}<title>{_text(f'{row.name}: {text} at {in_words(time)}')}</title></path>"


def _bar(start: float, end: float, scale: float, top: float, height: float) -> str:
    x, width = _round(LEFT + start * scale), _round(max(0.6, (end - start) * scale))
    return f'<rect x="{x}" y="{top}" width="{width}" height="{height}"'


def _middle(row: int) -> float:
    return TOP + HEIGHT * row + HEIGHT / 2


def _round(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".")


def _text(text: str) -> str:
    # Names in guests can hold what XML cannot.
    return escape("".join(c if c.isprintable() else "\ufffd" for c in text))
