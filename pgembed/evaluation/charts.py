"""Plots as plain SVG: lines, intervals and histograms, drawn in the colour of the text around them.

A hue is never all that tells two series apart: each has a mark of its own, and a legend.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 640, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 16, 48
_HUES = ("#3b82f6", "#d97706", "#16a34a", "#c026d3")
_DASHES = ("", "6 3", "2 3", "8 3 2 3")
_TICKS = 5


@dataclass(frozen=True)
class Series:
    """A named line of (x, y); a note, where there is one, is shown when the pointer rests on a point."""

    name: str
    points: Sequence[tuple[float, float]]
    notes: Sequence[str] = ()
    marked: bool = True


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = (
            (math.log(v) for v in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        return self.start + (at - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            found = [m * 10.0**e for e in range(first, last + 1) for m in (1, 2, 5)]
            inside = [v for v in found if self.low * 0.999 <= v <= self.high * 1.001]
            return inside if len(inside) >= 2 else [self.low, self.high]
        step = _round_step((self.high - self.low) / _TICKS)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def lines(
    series: Sequence[Series], *, x: str, y: str, log_x: bool = False, level: float | None = None, title: str = ""
) -> str:
    """Return a plot of `series`; `level` is a horizontal line, such as a target. Empty where there is no point."""
    drawn = [
        Series(s.name, kept, s.notes if len(kept) == len(s.points) else (), s.marked)
        for s in series
        if (kept := [p for p in s.points if all(map(math.isfinite, p)) and (not log_x or p[0] > 0)])
    ]
    if not drawn:
        return ""
    xs = [p[0] for s in drawn for p in s.points]
    ys = [p[1] for s in drawn for p in s.points] + ([] if level is None else [level])
    across = _Scale(min(xs), max(xs), _LEFT, _WIDTH - _RIGHT, log_x)
    low, high = _margins(min(ys), max(ys))
    up = _Scale(low, high, _HEIGHT - _BOTTOM, _TOP)
    parts = _axes(across, up, x, y)
    if level is not None:
        parts.append(_line(_LEFT, up(level), _WIDTH - _RIGHT, up(level), 'stroke-dasharray="3 4" opacity="0.7"'))
    for number, one in enumerate(drawn):
        hue, dash = _HUES[number % len(_HUES)], _DASHES[number % len(_DASHES)]
        path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in one.points)
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{hue}" stroke-width="2" stroke-dasharray="{dash}"/>'
        )
        if one.marked:
            for place, (a, b) in enumerate(one.points):
                note = one.notes[place] if one.notes else f"{one.name}: {_number(a)}, {_number(b)}"
                parts.append(_mark(number, across(a), up(b), hue, note))
    parts += _legend([s.name for s in drawn], [s.marked for s in drawn])
    return _svg(parts, title or f"{y} against {x}")


def intervals(rows: Sequence[tuple[str, Sequence[tuple[str, float, float, float]]]], *, title: str) -> str:
    """Return means with their intervals: (metric, [(series, mean, low, high), …]), one line for each, from 0 to 1."""
    names = list(dict.fromkeys(name for _, values in rows for name, *_ in values))
    if not names:
        return ""
    step = 16
    height = _TOP + sum(step * len(values) + 14 for _, values in rows) + _BOTTOM + 18
    left = 104
    across = _Scale(0.0, 1.0, left, _WIDTH - _RIGHT)
    bottom = height - _BOTTOM
    parts = [_line(left, bottom, _WIDTH - _RIGHT, bottom)]
    for tick in across.ticks():
        parts.append(_line(across(tick), _TOP + 18, across(tick), bottom, 'opacity="0.2"'))
        parts.append(_text(across(tick), bottom + 16, f"{tick:.1f}", "middle"))
    at = _TOP + 30.0
    for metric, values in rows:
        parts.append(_text(left - 8, at + step * (len(values) - 1) / 2 + 4, metric, "end"))
        for name, mean, low, high in values:
            number = names.index(name)
            hue = _HUES[number % len(_HUES)]
            parts.append(
                f'<line x1="{across(low):.1f}" y1="{at:.1f}" x2="{across(high):.1f}" y2="{at:.1f}" stroke="{hue}"'
                ' stroke-width="2"/>'
            )
            parts.append(_mark(number, across(mean), at, hue, f"{name}: {mean:.3f} [{low:.3f}, {high:.3f}]"))
            at += step
        at += 14
    parts += _legend(names, [True] * len(names))
    return _svg(parts, title, height)


def histogram(values: Sequence[float], *, x: str, y: str, bins: int = 21, title: str = "") -> str:
    """Return how often values fall into equal bins about zero, which lies in the middle of one."""
    if not values:
        return ""
    reach = max(map(abs, values)) or 1.0
    width = 2 * reach / bins
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value + reach) / width))] += 1
    across = _Scale(-reach, reach, _LEFT, _WIDTH - _RIGHT)
    up = _Scale(0, max(counts) * 1.05, _HEIGHT - _BOTTOM, _TOP)
    parts = _axes(across, up, x, y)
    for number, count in enumerate(counts):
        if count:
            low = -reach + number * width
            sign = 1 if number > bins // 2 else -1 if number < bins // 2 else 0
            hue = {1: _HUES[2], -1: _HUES[1], 0: "currentColor"}[sign]
            left, right = across(low) + 1, across(low + width) - 1
            parts.append(
                f'<rect x="{left:.1f}" y="{up(count):.1f}" width="{right - left:.1f}"'
                f' height="{up(0) - up(count):.1f}" fill="{hue}" fill-opacity="0.8">'
                f"<title>{escape(f'{low:+.2f} to {low + width:+.2f}: {count:,}')}</title></rect>"
            )
    return _svg(parts, title or f"{y} by {x}")


def standalone(svg: str) -> str:
    """Return a drawing as a file of its own, on white."""
    head, _, rest = svg.partition(">")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'{head} xmlns="http://www.w3.org/2000/svg" color="#111">'
        f'<rect width="100%" height="100%" fill="#fff"/>{rest}\n'
    )


def _axes(across: _Scale, up: _Scale, x: str, y: str) -> list[str]:
    bottom = _HEIGHT - _BOTTOM
    parts = [_line(_LEFT, bottom, _WIDTH - _RIGHT, bottom), _line(_LEFT, _TOP, _LEFT, bottom)]
    for tick in across.ticks():
        parts.append(_line(across(tick), bottom, across(tick), bottom + 4))
        parts.append(_text(across(tick), bottom + 16, _number(tick), "middle"))
    for tick in up.ticks():
        parts.append(_line(_LEFT, up(tick), _WIDTH - _RIGHT, up(tick), 'opacity="0.15"'))
        parts.append(_text(_LEFT - 6, up(tick) + 4, _number(tick), "end"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 10, x, "middle"))
    middle = (_TOP + bottom) / 2
    parts.append(_text(14, middle, y, "middle", f'transform="rotate(-90 14 {middle:.0f})"'))
    return parts


def _legend(names: Sequence[str], marked: Sequence[bool]) -> list[str]:
    if len(names) < 2:
        return []
    parts, at = [], float(_LEFT + 8)
    for number, name in enumerate(names):
        hue = _HUES[number % len(_HUES)]
        parts.append(
            _mark(number, at, _TOP + 4, hue, name)
            if marked[number]
            else f'<line x1="{at - 6:.1f}" y1="{_TOP + 4}" x2="{at + 6:.1f}" y2="{_TOP + 4}" stroke="{hue}"'
            f' stroke-width="2" stroke-dasharray="{_DASHES[number % len(_DASHES)]}"/>'
        )
        shown = name if len(name) <= 32 else name[:31] + "…"
        parts.append(_text(at + 10, _TOP + 8, shown, "start"))
        at += 28 + 7 * len(shown)
    return parts


def _mark(number: int, x: float, y: float, hue: str, note: str) -> str:
    title = f"<title>{escape(note)}</title>"
    match number % 4:
        case 0:
            return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{hue}">{title}</circle>'
        case 1:
            return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{hue}">{title}</rect>'
        case 2:
            corners = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y + 4:.1f} {x - 5:.1f},{y + 4:.1f}"
        case _:
            corners = f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 5:.1f} {x - 5:.1f},{y:.1f}"
    return f'<polygon points="{corners}" fill="{hue}">{title}</polygon>'


def _line(x1: float, y1: float, x2: float, y2: float, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="currentColor" {more}/>'


def _text(x: float, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor" {more}>{escape(text)}</text>'


def _svg(parts: list[str], title: str, height: int = _HEIGHT) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" role="img"'
        f' aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="12">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _margins(low: float, high: float) -> tuple[float, float]:
    room = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - room, high + room


def _round_step(raw: float) -> float:
    """Return the least of 1, 2, 5 times a power of ten that is no less than `raw`."""
    if raw <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(raw))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"
