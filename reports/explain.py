"""What was expected and what was observed, in words and tables: one readable form per kind of observation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import singledispatch
from itertools import islice, zip_longest
from typing import Any

import msgspec

from conformance.observations import (
    CaseFailure,
    Cases,
    Equal,
    Failed,
    Growth,
    LogitsDistance,
    Measured,
    Missing,
    Observed,
    Sample,
    Tokens,
    Undecided,
)
from conformance.record import Finding, RowResult
from conformance.verdicts import Rehearsed, Verdict
from reports.text import clip, file_size, number, one_line, plural, rate

MAX_DIFFERENCES = 12
_ABSENT = "absent"
_CONTEXT = 24
_DEEPEST = 30
_LONG = 10_000
LINK_RATES = ("pinned", "pageable")


class Difference(msgspec.Struct, frozen=True):
    """One place where an observed value is not the expected one; `where` is a path like `shape[1]`."""

    where: str
    expected: str
    observed: str


class ClassCount(msgspec.Struct, frozen=True):
    """How many examples of a fault class ran, were demanded, and failed."""

    name: str
    ran: int
    required: int
    failed: int


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A readable observation. `agrees` is None where the observation compares nothing by itself."""

    expected: str = ""
    observed: str = ""
    agrees: bool | None = None
    differences: tuple[Difference, ...] = ()
    left_out: int = 0
    facts: tuple[tuple[str, str], ...] = ()
    classes: tuple[ClassCount, ...] = ()
    failures: tuple[CaseFailure, ...] = ()


class Point(msgspec.Struct, frozen=True):
    """An observation with what the judge made of it; either may be missing in a broken record."""

    name: str
    observation: Observed | None
    finding: Finding | None

    @property
    def verdict(self) -> Verdict:
        """The finding's verdict; an observation that nobody judged decides nothing."""
        return self.finding.verdict if self.finding else Verdict.UNTESTED


def points(result: RowResult) -> list[Point]:
    """Findings in the judge's order, each with its observation; then observations without a finding."""
    waiting: dict[str, list[Observed]] = {}
    for observation in result.observations:
        waiting.setdefault(observation.name, []).append(observation)
    found = []
    for finding in result.findings:
        queue = waiting.get(finding.name)
        found.append(Point(finding.name, queue.pop(0) if queue else None, finding))
    return found + [Point(name, o, None) for name, queue in waiting.items() for o in queue]


def decisive(result: RowResult) -> Point | None:
    """The first point whose verdict is the row's, or else (a rehearsal) the first that failed."""
    candidates = points(result)
    own = Verdict.FALSIFIED if result.rehearsed is Rehearsed.FAILED else result.verdict
    for wanted in (own, Verdict.FALSIFIED, Verdict.ERROR, Verdict.WARNING):
        for point in candidates:
            if point.finding and point.verdict is wanted:
                return point
    return candidates[0] if candidates else None


def brief(observation: Observed, limit: int = 160) -> str:
    """Expected and observed on one line."""
    told = explain(observation)
    if told.differences:
        gap = told.differences[0]
        place = f"{gap.where}: " if gap.where else ""
        return one_line(f"{place}expected {gap.expected}, observed {gap.observed}", limit)
    if told.agrees:
        return one_line(f"as expected: {told.observed}", limit)
    if told.expected and told.observed:
        return one_line(f"expected {told.expected}, observed {told.observed}", limit)
    if told.failures:
        first = told.failures[0]
        return one_line(f"{told.observed}; {first.how} in {first.case_class}: {first.detail}", limit)
    return one_line(told.observed, limit)


def addition(observation: Observed, reason: str, limit: int = 300) -> str:
    """What an observation tells beyond a reason that already stands beside it; empty if nothing."""
    told = explain(observation)
    words = told.observed if told.failures else brief(observation, 10 * _LONG)
    return "" if one_line(words, 10 * _LONG) in one_line(reason, 10 * _LONG) else one_line(words, limit)


@singledispatch
def explain(observation: Observed) -> Explanation:
    """The readable form of an observation."""
    return Explanation(observed=json_text(observation))


@explain.register
def _(observation: Equal) -> Explanation:
    found = list(islice(differences(observation.expected, observation.observed), 10 * MAX_DIFFERENCES))
    return Explanation(
        expected=json_text(observation.expected),
        observed=json_text(observation.observed),
        agrees=not found,
        differences=tuple(found[:MAX_DIFFERENCES]),
        left_out=max(0, len(found) - MAX_DIFFERENCES),
    )


@explain.register
def _(observation: Measured) -> Explanation:
    return Explanation(observed=amount(observation.value, observation.unit))


@explain.register
def _(observation: Sample) -> Explanation:
    values, unit = observation.values, observation.unit
    span = f"{amount(min(values), unit)} to {amount(max(values), unit)}" if values else "no values"
    context = tuple(
        (name.replace("_", " "), _context(name, value, unit)) for name, value in observation.context.items()
    )
    return Explanation(observed=f"{span} in {plural(len(values), 'fresh process', 'fresh processes')}", facts=context)


@explain.register
def _(observation: Growth) -> Explanation:
    facts = (
        ("engine's own account", _rise(observation.account, observation.warm_up)),
        (observation.witness_name, _rise(observation.witness, observation.warm_up)),
    )
    operations = plural(len(observation.witness), "operation")
    return Explanation(observed=f"{operations}, of which {observation.warm_up} to warm up", facts=facts)


@explain.register
def _(observation: Cases) -> Explanation:
    failed = [failure.case_class for failure in observation.failures]
    names = list(dict.fromkeys([*observation.required, *observation.ran, *failed]))
    classes = tuple(
        ClassCount(name, observation.ran.get(name, 0), observation.required.get(name, 0), failed.count(name))
        for name in names
    )
    ran = f"{plural(sum(observation.ran.values()), 'example')} in {plural(len(names), 'class', 'classes')}"
    return Explanation(
        observed=f"{ran}, {plural(len(observation.failures), 'failure')}",
        classes=classes,
        failures=tuple(observation.failures[:MAX_DIFFERENCES]),
        left_out=max(0, len(observation.failures) - MAX_DIFFERENCES),
    )


@explain.register
def _(observation: Tokens) -> Explanation:
    step = first_difference(observation.expected, observation.observed)
    facts: list[tuple[str, str]] = []
    if step is not None:
        facts += [("first difference", f"step {step}")]
        if step < len(observation.margins):
            facts += [("reference's margin there", f"{observation.margins[step]:.4g} logits")]
        if observation.reanchored is not None:
            facts += [("after re-anchoring", ids_around(observation.reanchored, 0))]
    return Explanation(
        expected=ids_around(observation.expected, step or 0),
        observed=ids_around(observation.observed, step or 0),
        agrees=step is None,
        facts=tuple(facts),
    )


@explain.register
def _(observation: LogitsDistance) -> Explanation:
    step = first_difference(observation.argmax_expected, observation.argmax_observed)
    facts = (
        ("largest difference", f"{observation.max_abs:.4g}"),
        ("smallest cosine", f"{observation.min_cosine:.7f}"),
        ("positions compared", number(observation.positions)),
    )
    return Explanation(
        expected=f"argmax {ids_around(observation.argmax_expected, step or 0)}",
        observed=f"argmax {ids_around(observation.argmax_observed, step or 0)}",
        agrees=step is None,
        facts=facts,
    )


@explain.register
def _(observation: Missing) -> Explanation:
    return Explanation(observed=f"not tried: {observation.reason}")


@explain.register
def _(observation: Undecided) -> Explanation:
    return Explanation(observed=f"undecided: {observation.reason}")


@explain.register
def _(observation: Failed) -> Explanation:
    return Explanation(observed=f"{observation.how}: {observation.detail}")


def differences(expected: Any, observed: Any, where: str = "", depth: int = 0) -> Iterator[Difference]:
    """The places where two JSON values differ, depth first; 1 and 1.0 and true are three different values.

    Below `_DEEPEST` levels the rest is compared as one value: an engine decides how deep its answer is.
    """
    if depth > _DEEPEST:
        if msgspec.json.encode(expected) != msgspec.json.encode(observed):
            yield Difference(where, json_text(expected), json_text(observed))
    elif isinstance(expected, dict) and isinstance(observed, dict):
        for key in [*expected, *(key for key in observed if key not in expected)]:
            path = f"{where}.{key}" if where else str(key)
            yield from _member_differences(expected, observed, key, path, depth)
    elif isinstance(expected, list) and isinstance(observed, list):
        gap = object()
        for index, (want, got) in enumerate(zip_longest(expected, observed, fillvalue=gap)):
            path = f"{where}[{index}]"
            if want is gap or got is gap:
                yield Difference(
                    path,
                    _ABSENT if want is gap else json_text(want),
                    _ABSENT if got is gap else json_text(got),
                )
            else:
                yield from differences(want, got, path, depth + 1)
    elif type(expected) is not type(observed) or expected != observed:
        yield _leaf_difference(expected, observed, where)


def _member_differences(
    expected: dict[Any, Any], observed: dict[Any, Any], key: Any, path: str, depth: int
) -> Iterator[Difference]:
    if key not in observed:
        yield Difference(path, json_text(expected[key]), _ABSENT)
    elif key not in expected:
        yield Difference(path, _ABSENT, json_text(observed[key]))
    else:
        yield from differences(expected[key], observed[key], path, depth + 1)


def _leaf_difference(expected: Any, observed: Any, where: str) -> Difference:
    if isinstance(expected, str) and isinstance(observed, str):
        step = first_difference(expected, observed) or 0
        if step > _CONTEXT:
            start = step - _CONTEXT
            place = f"{where}, from character {start}" if where else f"from character {start}"
            return Difference(place, json_text(expected[start:]), json_text(observed[start:]))
    return Difference(where, json_text(expected), json_text(observed))


def first_difference(expected: Sequence[Any], observed: Sequence[Any]) -> int | None:
    """The first index where two sequences differ, in value or by one of them ending; None if they are equal."""
    for index, (want, got) in enumerate(zip(expected, observed, strict=False)):
        if want != got:
            return index
    return None if len(expected) == len(observed) else min(len(expected), len(observed))


def ids_around(ids: Sequence[int], step: int, shown: int = 12) -> str:
    """A window of ids that holds the given step, and how many there are: `… 11, 12, 13 … (64 ids)`."""
    if not ids:
        return "no ids"
    start = max(0, min(step - shown // 2, len(ids) - shown))
    window = ", ".join(str(token) for token in ids[start : start + shown])
    before, after = "… " if start else "", " …" if start + shown < len(ids) else ""
    return f"{before}{window}{after} ({plural(len(ids), 'id')})"


def json_text(value: Any, limit: int = 600) -> str:
    """A JSON value as text: strings quoted, at most `limit` characters."""
    return clip(msgspec.json.encode(value).decode(), limit)


def amount(value: float, unit: str) -> str:
    """A number with its unit; bytes and bytes per second in a unit that fits."""
    if unit in {"B", "B/s"} and math.isfinite(value):
        return rate(value) if unit == "B/s" else file_size(round(value))
    return f"{number(value)} {unit}".rstrip()


def _context(name: str, value: float, unit: str) -> str:
    """A number beside a sample, in the unit that its name ends with, or that of the sample's own link rates."""
    if name.endswith("bytes_per_s") or (name in LINK_RATES and unit == "B/s"):
        return amount(value, "B/s")
    return amount(value, "B") if "bytes" in name else number(value)


def _rise(series: Sequence[int], warm_up: int) -> str:
    settled = series[warm_up:]
    if not settled:
        return "not observed"
    change = settled[-1] - settled[0]
    sign = "+" if change > 0 else "\N{MINUS SIGN}" if change < 0 else "±"
    return f"{file_size(settled[0])} → {file_size(settled[-1])} ({sign}{file_size(abs(change))} after warm-up)"
