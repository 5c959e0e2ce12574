"""Hypothesis by fault class: choose within the class, try the file, shrink what the engine gets wrong."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.errors import NoSuchExample

from conformance.corpus.safetensors.classes import Case, CorpusClass, sha256
from conformance.corpus.safetensors.findings import Finding, declined, judge, judge_control
from conformance.corpus.safetensors.probe import Outcome, Status

T = TypeVar("T")

DEFAULT_EXAMPLES = 30
LONG_EXAMPLES = 300
_ATTEMPTS_PER_EXAMPLE = 4


@cache
def _integers(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high)


class DrawnSource:
    """A builder's choices, made and shrunk by Hypothesis."""

    def __init__(self, draw: st.DrawFn) -> None:
        self._draw = draw

    def integer(self, low: int, high: int) -> int:
        """A whole number in [low, high]."""
        return self._draw(_integers(low, high))

    def pick(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self._draw(_integers(0, len(options) - 1))]


@st.composite
def cases(draw: st.DrawFn, corpus_class: CorpusClass) -> Case:
    """Examples of one class."""
    return corpus_class.build(DrawnSource(draw))


@dataclass(frozen=True, slots=True)
class Budget:
    """What shrinking may cost: processes that have to be replaced, and seconds since the first failure."""

    restarts: int = 50
    seconds: float = 20.0


@dataclass(frozen=True, slots=True)
class Failure:
    """The smallest example that the engine got wrong; `of_control` if it was the valid file beside it."""

    finding: Finding
    case: Case
    outcome: Outcome
    of_control: bool

    @property
    def data(self) -> bytes:
        """The bytes of the file that was got wrong."""
        return self.case.control if self.of_control else self.case.data


@dataclass(frozen=True, slots=True)
class Hunt:
    """One class tried: how many distinct examples were judged, how many said nothing, and what failed.

    An example says nothing where its control was declined for its dtype: a refusal then proves no check.
    `accepted` of those that ran were accepted, which is worth telling where the format leaves it open.
    """

    name: str
    ran: int
    accepted: int
    vacuous: int
    tried: int
    seconds: float
    failure: Failure | None = None


def _any(failure: Failure) -> bool:
    del failure
    return True


class _Enough(BaseException):
    """Enough distinct examples were judged; passes through Hypothesis as an interrupt does."""


class _Undone(BaseException):
    """The harness could not try a file; passes through Hypothesis, which would shrink it like a finding."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause
        super().__init__(str(cause))


@dataclass(slots=True)
class _Trial:
    """The state of one hunt: what was judged already, and what it has cost."""

    corpus_class: CorpusClass
    judge_file: Callable[[bytes], Outcome]
    examples: int
    budget: Budget
    counts: Callable[[Failure], bool]
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: dict[str, Failure | None] = field(default_factory=dict)
    ran: int = 0
    accepted: int = 0
    vacuous: int = 0
    failed_at: float | None = None
    restarts: int = 0

    def fails(self, case: Case) -> bool:
        """Whether the engine gets the case wrong; the same bytes always get the same answer."""
        key = sha256(case.data + case.control)
        if key not in self.failures:
            if self._spent():
                return False
            self._examine(key, case)
        if self.failed_at is None and self.ran >= self.examples:
            raise _Enough
        return self.failures[key] is not None

    def failure(self, case: Case) -> Failure | None:
        """What was found out about a case."""
        return self.failures[sha256(case.data + case.control)]

    def _examine(self, key: str, case: Case) -> None:
        control = self._outcome(case.control)
        found = self.failures[key] = self._judged(case, control)
        if self.failed_at is not None:
            return
        if declined(case.control_contents, control):
            self.vacuous += 1
        else:
            self.ran += 1
            self.accepted += self._outcome(case.data).status is Status.ACCEPTED if found is None else 0
        if found is not None:
            self.failed_at = time.monotonic()

    def _judged(self, case: Case, control: Outcome) -> Failure | None:
        failure = self._failure_of(case, control)
        return failure if failure is not None and self.counts(failure) else None

    def _failure_of(self, case: Case, control: Outcome) -> Failure | None:
        if finding := judge_control(case, control):
            return Failure(finding, case, control, of_control=True)
        outcome = self._outcome(case.data)
        finding = judge(self.corpus_class.demand, case, outcome)
        return Failure(finding, case, outcome, of_control=False) if finding else None

    def _outcome(self, data: bytes) -> Outcome:
        key = sha256(data)
        if key not in self.outcomes:
            try:
                self.outcomes[key] = self.judge_file(data)
            except Exception as error:
                raise _Undone(error) from error
            self.restarts += self.outcomes[key].ended_process
        return self.outcomes[key]

    def _spent(self) -> bool:
        if self.failed_at is None:
            return False
        return self.restarts >= self.budget.restarts or time.monotonic() - self.failed_at >= self.budget.seconds


def confine(directory: Path) -> None:
    """Keep Hypothesis's own files inside `directory` instead of wherever the trial was started."""
    set_hypothesis_home_dir(directory)


def hunt(
    corpus_class: CorpusClass,
    judge_file: Callable[[bytes], Outcome],
    *,
    examples: int = DEFAULT_EXAMPLES,
    seed: int = 0,
    budget: Budget | None = None,
    counts: Callable[[Failure], bool] = _any,
) -> Hunt:
    """Try `examples` distinct files of a class, each after its control, and shrink the first that goes wrong.

    Args:
        corpus_class: The class to choose within.
        judge_file: Tries one file on the engine, as `Prober.try_bytes` does.
        examples: How many distinct cases must be judged; fewer only where Hypothesis finds no more.
        seed: Makes the choices repeatable.
        budget: What shrinking may cost; past it, files not yet seen count as right.
        counts: Which failures are looked for; the others are passed over, so that a mild one hides no grave one.

    Raises:
        Exception: Whatever `judge_file` raises; it is not taken for a finding.
    """
    started = time.monotonic()
    trial = _Trial(corpus_class, judge_file, examples, budget or Budget(), counts)
    smallest = _smallest_failure(trial, seed)
    return Hunt(
        corpus_class.name,
        ran=trial.ran,
        accepted=trial.accepted,
        vacuous=trial.vacuous,
        tried=len(trial.outcomes),
        seconds=time.monotonic() - started,
        failure=smallest,
    )


def _smallest_failure(trial: _Trial, seed: int) -> Failure | None:
    profile = hypothesis.settings(
        max_examples=trial.examples * _ATTEMPTS_PER_EXAMPLE,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        verbosity=Verbosity.quiet,
    )
    choices = random.Random(f"{seed}/{trial.corpus_class.name}")  # noqa: S311 -- examples, not secrets
    try:
        case = hypothesis.find(cases(trial.corpus_class), trial.fails, settings=profile, random=choices)
    except (NoSuchExample, _Enough):
        return None
    except _Undone as undone:
        raise undone.cause from None
    return trial.failure(case)
