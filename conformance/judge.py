"""The one pure judge: observations and thresholds in, a verdict with its reasons out.

It never measures, never reads a file, never asks the engine. A stored record can be judged again.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from functools import singledispatch

import msgspec

from conformance.catalogue import NO_DEVICE, Row
from conformance.near_tie import compare_greedy
from conformance.observations import (
    Agreement,
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
from conformance.record import Finding
from conformance.statistics import Decision, decide_growth, decide_rate, smallest_visible
from conformance.thresholds import Limit, MissingThreshold, Thresholds
from conformance.verdicts import Rehearsed, Verdict, roll_up

_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
_OF_DECISION = {
    Decision.MEETS: Verdict.CORROBORATED,
    Decision.VIOLATES: Verdict.FALSIFIED,
    Decision.UNDECIDED: Verdict.INCONCLUSIVE,
}
_SHOWN = 200
ENGINE = "engine"
"""The reserved observation name for what befell the engine as a whole."""


class Situation(msgspec.Struct, frozen=True):
    """What the judge must know besides the observations: who is on trial, and whether a GPU is there at all."""

    gpu: bool
    is_reference: bool


class Judgement(msgspec.Struct, frozen=True):
    """The verdict on a row, why (empty only when CORROBORATED), the findings, and how a rehearsal went."""

    verdict: Verdict
    reason: str
    findings: list[Finding]
    rehearsed: Rehearsed | None = None


def judge(row: Row, observations: Sequence[Observed], thresholds: Thresholds, situation: Situation) -> Judgement:
    """Judge one row. Total: bad observations are the harness's fault and give ERROR, never an exception."""
    findings = [_find(row, observation, thresholds, situation) for observation in observations]
    findings += _breaches_of_contract(row, observations, findings, situation)
    if row.needs_cuda and not situation.gpu:
        return _rehearsal(findings)
    verdict, reason = _worst(findings)
    return Judgement(verdict, reason, findings)


def _rehearsal(findings: list[Finding]) -> Judgement:
    """Nothing is shown about the GPU; how the CPU path fared is told beside the verdict.

    A lack of anything but the device stays the reason: on a GPU the row would be untested too.
    """
    tried = [f for f in findings if not (f.verdict is Verdict.UNTESTED and f.detail == NO_DEVICE)]
    verdict, reason = _worst(tried)
    if tried and verdict is Verdict.ERROR:
        return Judgement(verdict, reason, findings)
    if tried and verdict is Verdict.FALSIFIED:
        return Judgement(Verdict.UNTESTED, f"{NO_DEVICE}; {reason}", findings, Rehearsed.FAILED)
    if tried and verdict is Verdict.UNTESTED:
        return Judgement(verdict, reason, findings)
    survived = tried and verdict in {Verdict.CORROBORATED, Verdict.WARNING}
    return Judgement(Verdict.UNTESTED, NO_DEVICE, findings, Rehearsed.SURVIVED if survived else None)


def _worst(findings: Sequence[Finding]) -> tuple[Verdict, str]:
    verdict = roll_up(finding.verdict for finding in findings)
    if verdict is Verdict.CORROBORATED:
        return verdict, ""
    first = next((finding for finding in findings if finding.verdict is verdict), None)
    if first is None:
        return verdict, "nothing was observed"
    return verdict, first.detail if first.verdict is Verdict.UNTESTED else f"{first.name}: {first.detail}"


def _breaches_of_contract(
    row: Row, observations: Sequence[Observed], findings: Sequence[Finding], situation: Situation
) -> list[Finding]:
    """A check that observed less, or other things, than the catalogue demands is broken, whatever it saw."""
    demanded = set(row.observes) | (set(row.observes_on_gpu) if situation.gpu else set())
    allowed = set(row.observes) | set(row.observes_on_gpu) | {ENGINE}
    names = [observation.name for observation in observations]
    bases = {name.split("/", 1)[0] for name in names}
    ended_early = any(
        f.verdict is Verdict.FALSIFIED or _befell_the_row(o) for o, f in zip(observations, findings, strict=False)
    )
    breaches = [f"observed {name!r} more than once" for name in sorted({n for n in names if names.count(n) > 1})]
    breaches += [f"observed {base!r}, which the catalogue does not list" for base in sorted(bases - allowed)]
    if not row.needs_cuda:
        breaches += [
            f"lacked a device for {o.name!r}, and the row needs none"
            for o in observations
            if isinstance(o, Missing) and o.reason == NO_DEVICE
        ]
    if not ended_early:
        breaches += [f"did not observe {name!r}" for name in sorted(demanded - bases)]
    return [Finding("contract", Verdict.ERROR, "the catalogue's contract", detail) for detail in breaches]


def _befell_the_row(observation: Observed) -> bool:
    """True where nothing further could be observed; the want of a device excuses no clause but its own."""
    lacking = isinstance(observation, Missing) and observation.reason != NO_DEVICE
    return lacking or isinstance(observation, Failed)


def _find(row: Row, observation: Observed, thresholds: Thresholds, situation: Situation) -> Finding:
    try:
        limit = thresholds.limit(row.id, observation.name)
        finding = _apply(observation, limit or Limit("none"), _require(row, observation, limit))
    except (MissingThreshold, ValueError, ArithmeticError) as error:
        return Finding(observation.name, Verdict.ERROR, "the judge", str(error))
    if finding.verdict is not Verdict.FALSIFIED:
        return finding
    softened = row.severity == "WARNING" or (observation.hardening and not situation.is_reference)
    return msgspec.structs.replace(finding, verdict=Verdict.WARNING) if softened else finding


def _require(row: Row, observation: Observed, limit: Limit | None) -> Callable[[str], float]:
    def number(field: str) -> float:
        value = getattr(limit, field, None) if limit else None
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise MissingThreshold(row.id, observation.name, field)
        return value

    return number


@singledispatch
def _apply(observation: Observed, limit: Limit, need: Callable[[str], float]) -> Finding:
    del limit, need
    detail = f"no rule for {type(observation).__name__}"
    return Finding(observation.name, Verdict.ERROR, "the judge", detail)


@_apply.register
def _(observation: Equal, limit: Limit, need: Callable[[str], float]) -> Finding:
    del limit, need
    same = type(observation.expected) is type(observation.observed) and observation.expected == observation.observed
    detail = "" if same else f"expected {_show(observation.expected)}, observed {_show(observation.observed)}"
    return Finding(observation.name, _verdict(same), "equal to the witness", detail)


@_apply.register
def _(observation: Measured, limit: Limit, need: Callable[[str], float]) -> Finding:
    bound = need("limit")
    holds = math.isfinite(observation.value) and _RELATIONS[limit.relation](observation.value, bound)
    stated = f"{limit.relation} {bound:g} {limit.unit or observation.unit}"
    detail = f"{observation.value:g} {observation.unit}, demanded {stated}"
    verdict = _verdict(holds)
    if not holds and (limit.otherwise == "inconclusive" or _in_grey_zone(observation.value, bound, limit.undecided_to)):
        verdict = Verdict.INCONCLUSIVE
    return Finding(observation.name, verdict, "one exact number against a limit", detail, stated)


def _in_grey_zone(value: float, bound: float, end: float | None) -> bool:
    return end is not None and min(bound, end) <= value <= max(bound, end)


@_apply.register
def _(observation: Sample, limit: Limit, need: Callable[[str], float]) -> Finding:
    bound, alpha = need("limit"), need("alpha")
    larger = limit.relation in {">", ">="}
    if not larger and limit.relation == "==":
        raise ValueError(f"{observation.name}: a sample cannot be equal to a limit")
    result = decide_rate(
        observation.values,
        bound,
        larger_is_better=larger,
        alpha=alpha,
        looks=limit.looks,
        max_sd=need("max_sd"),
    )
    unit = observation.unit
    return Finding(
        observation.name,
        _OF_DECISION[result.decision],
        f"R1: t interval on logarithms, one value a fresh process or pair of turns, looks at {list(limit.looks)}",
        f"{result.mean:.4g} {unit} over {result.runs} runs: {result.why}",
        f"{limit.relation} {bound:g} {unit}",
        result.interval if all(map(math.isfinite, result.interval)) else None,
        alpha,
        f"{result.detectable:.1%} from the limit at this spread",
    )


@_apply.register
def _(observation: Growth, limit: Limit, need: Callable[[str], float]) -> Finding:
    del limit
    result = decide_growth(
        observation.account,
        observation.witness,
        warm_up=observation.warm_up,
        max_growth=int(need("max_growth")),
    )
    seen = smallest_visible(len(observation.witness), observation.warm_up)
    return Finding(
        observation.name,
        _OF_DECISION[result.decision],
        f"R3: block medians after {observation.warm_up} warm-up operations, witness {observation.witness_name}",
        result.why,
        f"no growth that goes on, and at most {int(need('max_growth'))} bytes",
        error_rate=need("alpha"),
        detectable=f"any leak that the account shows; {seen / 1024:.0f} KiB an operation on the witness, in pages; "
        "bursts at least once a block",
    )


@_apply.register
def _(observation: Cases, limit: Limit, need: Callable[[str], float]) -> Finding:
    del limit
    rule = "by fault class, every class with its full number of examples"
    if observation.failures:
        first = observation.failures[0]
        detail = f"{first.how} in {first.case_class}: {first.detail}"
        return Finding(observation.name, Verdict.FALSIFIED, rule, detail)
    least, classes = need("min_examples"), need("min_classes")
    short = sorted(name for name, wanted in observation.required.items() if observation.ran.get(name, 0) < wanted)
    if len(observation.required) < classes or min(observation.required.values(), default=0) < least:
        detail = f"{len(observation.required)} classes demanded of at least {classes:g} with {least:g} examples each"
        return Finding(observation.name, Verdict.ERROR, rule, detail)
    if short:
        return Finding(observation.name, Verdict.INCONCLUSIVE, rule, f"too few examples in {', '.join(short)}")
    total = sum(observation.ran.values())
    detectable = f"a class member of probability {3 / min(observation.ran.values()):.0%} with 95 % chance"
    return Finding(observation.name, Verdict.CORROBORATED, rule, f"{total} examples", detectable=detectable)


@_apply.register
def _(observation: Tokens, limit: Limit, need: Callable[[str], float]) -> Finding:
    rule = "R6: equal greedy ids; a first difference is a tie only inside the near-tie margin, re-anchored"
    if not observation.expected:
        return Finding(observation.name, Verdict.ERROR, rule, "no golden ids to compare with")
    result = compare_greedy(
        observation.expected,
        observation.observed,
        observation.margins,
        tie_margin=need("tie_margin"),
        reanchored=observation.reanchored,
    )
    stated = f"near-tie margin {limit.tie_margin:g} logits"
    return Finding(observation.name, _verdict(result.agreement is not Agreement.DIVERGED), rule, result.why, stated)


@_apply.register
def _(observation: LogitsDistance, limit: Limit, need: Callable[[str], float]) -> Finding:
    rule = "argmax at every position outside near-ties, cosine and largest difference bounded"
    if observation.positions < 1 or len(observation.argmax_expected) != observation.positions:
        return Finding(observation.name, Verdict.ERROR, rule, "no positions compared")
    flipped = [
        step
        for step, (want, got, margin) in enumerate(
            zip(observation.argmax_expected, observation.argmax_observed, observation.margins, strict=True)
        )
        if want != got and not margin <= need("tie_margin")
    ]
    most = logit_tolerance(limit, observation.noise)
    stated = f"difference <= {most:.3g}, cosine >= {need('min_cosine'):g}"
    detail = (
        f"largest difference {observation.max_abs:.3g}, smallest cosine {observation.min_cosine:.6f} "
        f"over {observation.positions} positions"
    )
    if flipped:
        return Finding(
            observation.name,
            Verdict.FALSIFIED,
            rule,
            f"argmax differs at step {flipped[0]}; {detail}",
            stated,
        )
    close = observation.max_abs <= most and observation.min_cosine >= limit_of(limit.min_cosine)
    return Finding(observation.name, _verdict(close), rule, detail, stated)


@_apply.register
def _(observation: Missing, limit: Limit, need: Callable[[str], float]) -> Finding:
    del limit, need
    return Finding(observation.name, Verdict.UNTESTED, "not tried", observation.reason)


@_apply.register
def _(observation: Undecided, limit: Limit, need: Callable[[str], float]) -> Finding:
    del limit, need
    return Finding(observation.name, Verdict.INCONCLUSIVE, "measured, not decided", observation.reason)


@_apply.register
def _(observation: Failed, limit: Limit, need: Callable[[str], float]) -> Finding:
    del limit, need
    detail = f"{observation.how}: {observation.detail}"
    return Finding(observation.name, Verdict.FALSIFIED, "the criterion demands that it works", detail)


def logit_tolerance(limit: Limit, noise: float | None) -> float:
    """How far a logit may be off: `max_abs`, or less where the golden run's rounding noise is known and small."""
    most = limit_of(limit.max_abs)
    return most if noise is None or limit.times_noise is None else min(most, limit.times_noise * noise)


def limit_of(value: float | None) -> float:
    """A limit that is known to be there."""
    return math.nan if value is None else value


def _verdict(holds: bool) -> Verdict:
    return Verdict.CORROBORATED if holds else Verdict.FALSIFIED


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
