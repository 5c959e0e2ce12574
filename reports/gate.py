"""The gate's decision in one paragraph, and as annotations on the rows that shut it."""

from __future__ import annotations

from conformance.gate.decision import Cause, Decision
from conformance.verdicts import ExitCode
from reports.text import one_line, plural

_SHOWN = 8
_WHY = {
    ExitCode.OPEN: "OPEN",
    ExitCode.FALSIFIED: "SHUT: falsified",
    ExitCode.USAGE: "SHUT: the gate file or the record does not fit",
    ExitCode.UNDECIDED: "SHUT: undecided or untested",
    ExitCode.HARNESS: "SHUT: the harness failed, or the record cannot be believed",
}


def paragraph(decision: Decision) -> str:
    """One paragraph: open or shut, the exit code, up to eight causes, what was let through, and what it is about."""
    parts = [f"Gate {_WHY[decision.code]} (exit code {int(decision.code)})."]
    first = sorted(decision.causes, key=lambda cause: cause.code is not decision.code)
    parts += [f"{_told(cause)}." for cause in first[:_SHOWN]]
    parts += [f"And {plural(len(first) - _SHOWN, 'further cause')}."] if len(first) > _SHOWN else []
    # A failure that is let through matters more to a reader than a row that cannot be tried here.
    excused = sorted(decision.excused, key=lambda each: not each[1].startswith("known"))
    if excused:
        told = "; ".join(f"{one_line(row, 20)}, {one_line(why, 160)}" for row, why in excused[:_SHOWN])
        more = f" and {len(excused) - _SHOWN} more" if len(excused) > _SHOWN else ""
        parts.append(f"Let through by the gate file: {told}{more}.")
    parts += [f"{note[0].upper()}{note[1:]}." for note in decision.notes]
    if decision.rehearsal:
        parts.append("This is a rehearsal on the CPU: nothing was shown about the GPU.")
    return " ".join(parts)


def workflow_commands(decision: Decision) -> list[str]:
    """GitHub workflow commands, one for each cause; foreign text is escaped so that it cannot be a command itself."""
    return [
        f"::error title={_property(cause.row or 'gate')}::{_data(one_line(cause.words, 500))}"
        for cause in decision.causes
    ]


def _told(cause: Cause) -> str:
    words = one_line(cause.words, 200).rstrip(".")
    return f"{cause.row}: {words}" if cause.row else f"{words[:1].upper()}{words[1:]}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
