"""The verdict lattice and the exit codes: the only place where outcomes are ordered."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum, StrEnum


class Verdict(StrEnum):
    """What a trial says about one row of the catalogue."""

    CORROBORATED = "CORROBORATED"
    FALSIFIED = "FALSIFIED"
    WARNING = "WARNING"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNTESTED = "UNTESTED"
    ERROR = "ERROR"


class Rehearsed(StrEnum):
    """How a row that needs a GPU fared on the CPU path; never a verdict about the GPU."""

    SURVIVED = "survived"
    FAILED = "failed"


class ExitCode(IntEnum):
    """The contract with a pipeline."""

    OPEN = 0
    FALSIFIED = 1
    USAGE = 2
    UNDECIDED = 3
    HARNESS = 4


MEANING: dict[Verdict, str] = {
    Verdict.CORROBORATED: "A severe test was run and the claim survived it.",
    Verdict.FALSIFIED: "The criterion's own words were violated; the evidence is below.",
    Verdict.WARNING: "A softer failure that the specification names as such, or hardening beyond its words.",
    Verdict.INCONCLUSIVE: "The measurement could not decide; nothing was shown either way.",
    Verdict.UNTESTED: "No test took place, for the stated reason. It is not a pass.",
    Verdict.ERROR: "The harness itself failed; the engine is not to blame.",
}

EXIT_MEANING: dict[ExitCode, str] = {
    ExitCode.OPEN: "The gate is open: every selected row is settled, and at least one was tried.",
    ExitCode.FALSIFIED: "A selected row is FALSIFIED, or its rehearsal failed.",
    ExitCode.USAGE: "The request itself is wrong: an unknown option, row, engine or model; nothing ran.",
    ExitCode.UNDECIDED: "A selected row is UNTESTED or INCONCLUSIVE, so nothing may be concluded.",
    ExitCode.HARNESS: "The harness failed, or the GPU is visible and unusable; the engine is not to blame.",
}

_WORST_FIRST = (
    Verdict.FALSIFIED,
    Verdict.ERROR,
    Verdict.UNTESTED,
    Verdict.INCONCLUSIVE,
    Verdict.WARNING,
    Verdict.CORROBORATED,
)


def roll_up(verdicts: Iterable[Verdict]) -> Verdict:
    """The worst verdict of several; of none at all, UNTESTED: nothing was decided."""
    present = set(verdicts)
    return next((verdict for verdict in _WORST_FIRST if verdict in present), Verdict.UNTESTED)
