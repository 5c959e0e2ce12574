"""Detection curves as inline SVG: share of replays that were called FALSIFIED, against the planted dose."""

from __future__ import annotations

import math

from conformance.calibration.results import SEEN, CalibratedGrowth, CalibratedRate, LeakCell, LimitCurve
from reports.svg import Scale, document, dot, label, line, path
from reports.text import file_size

WIDTH, _HEIGHT = 640.0, 232.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 44.0, 430.0, 14.0, 182.0
_APART = 13.0
_ONES = ("curve exact", "curve one", "curve two", "curve three", "curve four", "curve five")


def slowdown_curves(rate: CalibratedRate) -> str:
    """One line a limit: how often an engine slower by the dose was called FALSIFIED against it."""
    doses = [cell.slowdown for cell in rate.on_limit.cells]
    x = Scale(min(doses), max(doses), _LEFT + 6, _RIGHT - 6)
    body = _frame("slower than the healthy engine by", [(x(dose), f"{dose:.0%}") for dose in doses])
    named = []
    for css, curve in zip(_ONES, rate.curves, strict=False):
        points = [(x(cell.slowdown), _y(cell.counts.share)) for cell in curve.cells]
        body += _curve(points, [cell.counts.bounds for cell in curve.cells], css)
        named.append((points[-1][1], _limit(curve), css))
    body += _names(named)
    return document(WIDTH, _HEIGHT, _slowdown_title(rate), body)


def leak_curves(growth: CalibratedGrowth) -> str:
    """Two lines: leaks that the engine's account shows, and such as only the witness can see."""
    healthy = next(c for c in growth.cells if c.leak == 0 and c.max_growth == growth.max_growth)
    leaks = sorted({cell.leak for cell in growth.cells if cell.leak})
    if not leaks:
        return ""
    least = math.log2(leaks[0]) - 2
    x = Scale(least, math.log2(leaks[-1]), _LEFT + 6, _RIGHT - 6)

    def at(cell: LeakCell) -> tuple[float, float]:
        return x(math.log2(cell.leak) if cell.leak else least), _y(cell.counts.share)

    marks = [(x(least), "none"), *((x(math.log2(leak)), file_size(leak)) for leak in leaks)]
    body = _frame("kept at each operation (logarithmic)", marks)
    named = []
    for css, words, accounted in (("curve one", "in the account", True), ("curve exact", "witness alone", False)):
        if cells := growth.leaks(accounted=accounted):
            cells = [healthy, *cells]
            points = [at(cell) for cell in cells]
            body += _curve(points, [cell.counts.bounds for cell in cells], css)
            named.append((points[-1][1], words, css))
    body += _names(named)
    return document(WIDTH, _HEIGHT, _leak_title(growth), body)


def _y(share: float) -> float:
    return Scale(0, 1, _BOTTOM, _TOP)(share)


def _frame(what: str, marks: list[tuple[float, str]]) -> list[str]:
    body = [line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")]
    body += [line(_LEFT, _y(SEEN), _RIGHT, _y(SEEN), "reference")]
    body += [label(_LEFT - 6, _y(part) + 4, f"{part:.0%}", "end", "quiet") for part in (0, 0.5, 1)]
    body += [label(place, _BOTTOM + 16, words, "middle", "quiet") for place, words in marks]
    return [*body, label(_LEFT, _BOTTOM + 36, f"{what}; dotted: seen 95 times in 100", css="quiet")]


def _curve(points: list[tuple[float, float]], bounds: list[tuple[float, float]], css: str) -> list[str]:
    bars = [line(x, _y(low), x, _y(high), css) for (x, _), (low, high) in zip(points, bounds, strict=True)]
    return [path(points, css), *bars, *(dot(*point, 2.6, css) for point in points)]


def _names(named: list[tuple[float, str, str]]) -> list[str]:
    """The name of each line beside its end, moved apart where ends meet."""
    placed: list[str] = []
    last = -math.inf
    for end, words, css in sorted(named, key=lambda each: each[0]):
        last = max(end + 4, last + _APART)
        placed.append(label(_RIGHT + 6, last, words, css=css))
    return placed


def _limit(curve: LimitCurve) -> str:
    return "limit on the healthy mean" if curve.margin is None else f"limit {curve.margin:.0%} beyond the median"


def _slowdown_title(rate: CalibratedRate) -> str:
    told = ", ".join(f"{c.counts.share:.1%} at {c.slowdown:.0%}" for c in rate.on_limit.cells)
    return f"{rate.row} {rate.name}: share FALSIFIED with the limit on the healthy mean: {told}."


def _leak_title(growth: CalibratedGrowth) -> str:
    kinds = ((True, "in the account"), (False, "seen by the witness alone"))
    told = [
        f"{cell.counts.share:.1%} at {file_size(cell.leak)} {words}"
        for accounted, words in kinds
        for cell in growth.leaks(accounted=accounted)
    ]
    return f"{growth.row} {growth.name}: share FALSIFIED: {growth.false_alarm.share:.1%} healthy, {', '.join(told)}."
