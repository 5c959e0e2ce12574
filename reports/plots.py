"""Observations as inline SVG: every run a dot, every limit a line, never a bar that hides the spread."""

from __future__ import annotations

import math
import re
from functools import singledispatch
from itertools import groupby, zip_longest

from conformance.observations import Growth, LogitsDistance, Measured, Observed, Sample, Tokens
from conformance.record import Finding
from conformance.verdicts import Verdict
from reports.explain import LINK_RATES, amount, first_difference
from reports.scaling import scaling
from reports.svg import Scale, document, dot, label, line, path, rect, ticks
from reports.text import file_size, number, rate, readable_amounts

WIDTH = 640.0
_LEFT, _RIGHT = 8.0, WIDTH - 8.0
_STATED_LIMIT = re.compile(r"^(<=|>=|<|>) ([-+0-9.e]+)")
_MAX_POINTS = 600
_PITCH, _GAP, _CELLS_A_LINE, _MAX_CELLS = 9.75, 0.75, 64, 512


@singledispatch
def plot(observation: Observed, finding: Finding | None) -> str:
    """An SVG image of the observation; empty where a picture would say nothing more than the words."""
    del observation, finding
    return ""


@plot.register
def _(observation: Sample, finding: Finding | None) -> str:
    values = [value for value in observation.values if math.isfinite(value)][:_MAX_POINTS]
    if not values:
        return ""
    relation, limit = stated_limit(finding)
    interval = finding.interval if finding and finding.interval else None
    references = _references(observation)
    seen = [
        *values,
        *(value for _, value in references),
        *([limit] if limit is not None else []),
        *(b for b in interval or () if math.isfinite(b)),
    ]
    margin = (max(seen) - min(seen)) * 0.08 or abs(seen[0]) * 0.05 or 1.0
    x = Scale(min(seen) - margin, max(seen) + margin, _LEFT, _RIGHT)
    pitch = max(3.0, min(7.0, 140.0 / len(values)))
    top, bottom = 22.0, 22.0 + pitch * (len(values) + 1)
    floor = bottom + (18.0 if interval else 0.0)
    body = _limit_line(x, relation, limit, floor, observation.unit)
    body += _reference_lines(x, references, floor)
    body += [dot(x(value), top + pitch * (run + 0.5), 2.6, "dot") for run, value in enumerate(values)]
    if interval:
        body += _interval_bar(x, interval, bottom + 8)
    body += _axis(x, floor, observation.unit)
    body += [label(_LEFT, floor + 27, "one dot a run, the first at the top", css="quiet")]
    return document(WIDTH, floor + 30, _sample_title(observation, finding), body)


@plot.register
def _(observation: Measured, finding: Finding | None) -> str:
    del finding
    steps, prefills = (_series(observation.context, kind) for kind in ("step_s", "prefill_s"))
    if len(steps) < 2 or len(prefills) < 2:  # noqa: PLR2004  a line needs two points
        return ""
    return scaling(steps, prefills)


@plot.register
def _(observation: Growth, finding: Finding | None) -> str:
    del finding
    length = max(len(observation.account), len(observation.witness))
    if length <= 1 or length > _MAX_POINTS:
        return ""
    start = min(observation.warm_up, length - 1)
    account = _changes(observation.account, start)
    witness = _changes(observation.witness, start)
    extremes = [0, *account, *witness]
    x = Scale(0, length, _LEFT, _RIGHT - 130)
    y = Scale(min(extremes), max(*extremes, min(extremes) + 1), 136, 22)
    body = [rect(_LEFT, 14, x(start) - _LEFT, 130, "warm-up"), label(_LEFT + 4, 26, "warm-up", css="quiet")]
    body += [line(_LEFT, y(0), x(length), y(0), "axis")]
    body += [path(_staircase(x, y, series), css) for series, css in ((witness, "witness"), (account, "account"))]
    body += _growth_labels(y, x(length) + 6, account, witness, observation.witness_name)
    body += [label(x(start), 160, f"operation {start}", "middle", "quiet") if start else ""]
    body += [label(x(length), 160, f"{length} operations", "end", "quiet")]
    title = (
        f"Bytes in use after each of {length} operations, as change since warm-up ended: "
        f"account {file_size(account[-1]) if account else 'unknown'}, "
        f"{observation.witness_name} {file_size(witness[-1]) if witness else 'unknown'}."
    )
    return document(WIDTH, 168, title, body)


@plot.register
def _(observation: Tokens, finding: Finding | None) -> str:
    tie = finding is not None and finding.verdict is Verdict.CORROBORATED
    return _strip(observation.expected, observation.observed, observation.margins, "token", tie)


@plot.register
def _(observation: LogitsDistance, finding: Finding | None) -> str:
    tie = finding is not None and finding.verdict is Verdict.CORROBORATED
    return _strip(observation.argmax_expected, observation.argmax_observed, observation.margins, "argmax", tie)


def _series(context: dict[str, float], kind: str) -> list[tuple[float, float]]:
    """The points named `step_s@1000` and the like, by context length."""
    named = ((name.partition("@"), value) for name, value in context.items())
    return sorted((float(at), v) for (what, _, at), v in named if what == kind and at.isdecimal() and v > 0)


def stated_limit(finding: Finding | None) -> tuple[str, float | None]:
    """Relation and number of a limit like `> 5 GB/s`, as the finding states it."""
    match = _STATED_LIMIT.match(finding.limit) if finding else None
    try:
        return (match[1], float(match[2])) if match else ("", None)
    except ValueError:
        return "", None


def _limit_line(x: Scale, relation: str, limit: float | None, floor: float, unit: str) -> list[str]:
    if limit is None:
        return []
    larger = relation.startswith(">")
    begin, end = (_LEFT, x(limit)) if larger else (x(limit), _RIGHT)
    anchor = "start" if x(limit) < WIDTH / 2 else "end"
    offset = 5 if anchor == "start" else -5
    return [
        rect(begin, 14, end - begin, floor - 14, "forbidden"),
        line(x(limit), 4, x(limit), floor, "limit"),
        label(x(limit) + offset, 11, f"limit {relation} {amount(limit, unit)}", anchor, "limit-label"),
    ]


def _references(observation: Sample) -> list[tuple[str, float]]:
    """Rates of the link that the check measured itself in the same run, in the sample's own unit."""
    if observation.unit != "B/s":
        return []
    return [(n, v) for n, v in observation.context.items() if n in LINK_RATES and math.isfinite(v) and v > 0]


def _reference_lines(x: Scale, references: list[tuple[str, float]], floor: float) -> list[str]:
    body = []
    for place, (name, value) in enumerate(references):
        right = x(value) > WIDTH / 2
        words = f"our own copies, {name}: {rate(value)}"
        height = floor - 6 - 13 * place
        body += [line(x(value), 14, x(value), floor, "reference")]
        body += [label(x(value) + (-5 if right else 5), height, words, "end" if right else "start", "quiet")]
    return body


def _interval_bar(x: Scale, interval: tuple[float, float], y: float) -> list[str]:
    low, high = (min(max(x(bound), _LEFT), _RIGHT) if math.isfinite(bound) else _RIGHT for bound in interval)
    ends = [line(end, y - 5, end, y + 5, "interval") for end in (low, high)]
    return [line(low, y, high, y, "interval"), *ends]


def _axis(x: Scale, y: float, unit: str) -> list[str]:
    size, unit = (1e9, "GB/s") if unit == "B/s" else (1.0, unit)
    body = [line(_LEFT, y, _RIGHT, y, "axis")]
    for value in ticks(x.low, x.high):
        told = number(value / size)
        body += [line(x(value), y, x(value), y + 4, "axis"), label(x(value), y + 15, told, "middle", "quiet")]
    return [*body, label(_RIGHT, y + 27, unit, "end", "quiet")]


def _sample_title(observation: Sample, finding: Finding | None) -> str:
    values = observation.values
    unit = observation.unit
    text = f"{len(values)} runs between {amount(min(values), unit)} and {amount(max(values), unit)}"
    if finding and finding.interval:
        text += f", interval {amount(finding.interval[0], unit)} to {amount(finding.interval[1], unit)}"
    return f"{text}, limit {readable_amounts(finding.limit)}." if finding and finding.limit else f"{text}."


def _changes(series: list[int], start: int) -> list[int]:
    return [value - series[start] for value in series] if len(series) > start else []


def _staircase(x: Scale, y: Scale, series: list[int]) -> list[tuple[float, float]]:
    points: list[tuple[float, float]] = []
    for index, value in enumerate(series):
        if points and index + 1 < len(series) and series[index - 1] == value == series[index + 1]:
            continue
        points += [(x(index), y(value)), (x(index + 1), y(value))]
    return points or [(x(0), y(0))]


def _growth_labels(y: Scale, x: float, account: list[int], witness: list[int], witness_name: str) -> list[str]:
    ends = [(y(series[-1]), name, series[-1], css) for series, name, css in (
        (account, "account", "account-label"),
        (witness, witness_name, "witness-label"),
    ) if series]  # fmt: skip
    ends.sort(key=lambda end: end[0])
    if len(ends) == 2 and ends[1][0] - ends[0][0] < 14:  # noqa: PLR2004
        middle = (ends[0][0] + ends[1][0]) / 2
        ends = [(middle - 7, *ends[0][1:]), (middle + 7, *ends[1][1:])]
    return [
        label(x, position + 4, f"{name} {'+' if change > 0 else ''}{file_size(change)}", css=css)
        for position, name, change, css in ends
    ]


def _strip(expected: list[int], observed: list[int], margins: list[float], noun: str, tie: bool) -> str:
    first = first_difference(expected, observed)
    if first is None and not expected:
        return ""
    pairs = list(zip_longest(expected, observed))[:_MAX_CELLS]
    marked = "tie" if tie else "first"
    body = []
    states = ["same" if want == got else marked if step == first else "other" for step, (want, got) in enumerate(pairs)]
    for (place, state), run in groupby(enumerate(states), key=lambda cell: (cell[0] // _CELLS_A_LINE, cell[1])):
        cells = [step % _CELLS_A_LINE for step, _ in run]
        body += _strip_run(_LEFT + cells[0] * _PITCH, 8 + place * 22.0, len(cells), state)
    height = 8 + 22.0 * (-(-len(pairs) // _CELLS_A_LINE))
    words = (
        f"All {len(expected)} {noun}s equal."
        if first is None
        else _divergence(first, expected, observed, margins, noun)
    )
    return document(WIDTH, height + 18, words, [*body, label(_LEFT, height + 12, words, css="quiet")])


def _strip_run(x: float, y: float, cells: int, state: str) -> list[str]:
    """Neighbours of the same state as one piece; the first difference is always a cell of its own."""
    width = cells * _PITCH - _GAP
    if state == "same":
        return [rect(x, y + 4, width, 8, "same")]
    if state == "other":
        return [rect(x, y, width, 16, "differs later")]
    cross = [line(x + 2, y + 3, x + 7, y + 13, "cross"), line(x + 7, y + 3, x + 2, y + 13, "cross")]
    return [rect(x, y, width, 16, "tie" if state == "tie" else "differs"), *cross]


def _divergence(first: int, expected: list[int], observed: list[int], margins: list[float], noun: str) -> str:
    want = f"expected {expected[first]}" if first < len(expected) else "expected the end"
    got = f"observed {observed[first]}" if first < len(observed) else "observed the end"
    margin = f", reference's margin there {margins[first]:.3g} logits" if first < len(margins) else ""
    return f"First difference at {noun} {first} of {len(expected)}: {want}, {got}{margin}."
