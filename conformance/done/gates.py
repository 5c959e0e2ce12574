"""The gates and the pure judge of a measured value: met, not met, a warning, or untested with a reason."""

from __future__ import annotations

import operator
import tomllib
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from conformance.verdicts import ExitCode

GATES_PATH = Path(__file__).with_name("gates.toml")
_RELATIONS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge, ">": operator.gt}


class Standing(StrEnum):
    """How a gate stands."""

    MET = "met"
    NOT_MET = "not met"
    WARNING = "warning"
    UNTESTED = "untested"
    NOT_ASKED = "not asked"


class Gate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One gate of the specification; `says` are its own words, `languages` the engines that are asked (none: all)."""

    key: str
    name: str
    says: str
    clause: str
    relation: Literal["<=", ">=", ">"]
    threshold: float
    unit: str
    enforcement: Literal["merge", "warning"]
    languages: tuple[str, ...] = ()

    def asks(self, language: str) -> bool:
        """Whether engines of this language are asked."""
        return not self.languages or language in self.languages


class Measurement(msgspec.Struct, frozen=True):
    """A number that a command gave; why it gave none, or the line it was read from; `failed` where it ended badly."""

    command: str
    value: float | None = None
    reason: str = ""
    failed: str = ""


class DoneLine(msgspec.Struct, frozen=True):
    """A line of done.json: the gate, what measured it, the value against the threshold, and how it stands."""

    name: str
    command: str = ""
    value: float | None = None
    threshold: str = ""
    verdict: Standing = Standing.UNTESTED
    reason: str = ""
    key: str = ""
    clause: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    gate: tuple[Gate, ...]


@cache
def load_gates(path: Path = GATES_PATH) -> tuple[Gate, ...]:
    """All gates, in the specification's order."""
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), _File).gate


def judge_gate(gate: Gate, language: str, measurement: Measurement | None) -> DoneLine:
    """A measured value against its threshold. Nothing measured is never met.

    Args:
        gate: what is asked.
        language: the engine's.
        measurement: what its command gave; None where the manifest names no command.
    """
    found = measurement or Measurement("", reason=f"the manifest has no [done.{gate.key}] table")
    standing, reason = _standing(gate, found)
    if not gate.asks(language):
        standing, reason = Standing.NOT_ASKED, f"asked of engines in {', '.join(gate.languages)} alone"
        found = Measurement("")
    stated = f"{gate.relation} {gate.threshold:g} {gate.unit}"
    return DoneLine(gate.name, found.command, found.value, stated, standing, reason, gate.key, gate.clause)


def _standing(gate: Gate, found: Measurement) -> tuple[Standing, str]:
    if found.value is None:
        return Standing.UNTESTED, found.reason or "nothing was measured"
    if found.failed:
        return Standing.NOT_MET, f"the command failed: {found.failed}"
    if _RELATIONS[gate.relation](found.value, gate.threshold):
        return Standing.MET, ""
    return Standing.WARNING if gate.enforcement == "warning" else Standing.NOT_MET, found.reason


def exit_code(lines: Sequence[DoneLine]) -> ExitCode:
    """0 where every gate that is asked is met or warns, 1 where one is not met, 3 where one is untested or none is."""
    standings = {line.verdict for line in lines}
    if Standing.NOT_MET in standings:
        return ExitCode.FALSIFIED
    if Standing.UNTESTED in standings or not standings - {Standing.NOT_ASKED}:
        return ExitCode.UNDECIDED
    return ExitCode.OPEN
