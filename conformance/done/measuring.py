"""Runs the command of a gate where the engine's sources lie, and reads one number out of what it says."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from conformance.done.gates import DoneLine, Gate, Measurement, judge_gate
from conformance.manifest import GateTable, LoadedManifest
from conformance.sources.workshop import Ran, run

PERCENT = 100.0
_SHOWN = 200


def measure_all(
    manifest: LoadedManifest,
    gates: Iterable[Gate],
    chosen: Collection[str],
    out: Path,
    say: Callable[[DoneLine], None],
) -> list[DoneLine]:
    """Every gate in turn; `say` hears of each as it is judged. What is not chosen is untested for that reason.

    Args:
        manifest: the engine's, whose `[done]` tables name the commands.
        gates: all gates.
        chosen: the keys of those to measure.
        out: an existing directory for what commands leave.
        say: called with each line.
    """
    language = manifest.manifest.engine.language
    lines = []
    for gate in gates:
        table = manifest.manifest.done.get(gate.key)
        found = None
        if gate.key not in chosen:
            found = Measurement("", reason="not selected")
        elif table is not None and gate.asks(language):
            found = measure(manifest, table, out / gate.key)
        lines.append(judge_gate(gate, language, found))
        if gate.key in chosen:
            say(lines[-1])
    return lines


def measure(manifest: LoadedManifest, table: GateTable, out: Path) -> Measurement:
    """One command's number."""
    out.mkdir(parents=True, exist_ok=True)
    source = manifest.manifest.source
    root = (manifest.path.parent / (source.root if source else ".")).resolve()
    ran = run(manifest.filled(table.command, out=str(out)), root, table.timeout_s)
    (out / "output.txt").write_text(ran.output, encoding="utf-8")
    return read(table, ran)


def read(table: GateTable, ran: Ran) -> Measurement:
    """The number in a finished command's output; none where the pattern finds none, whatever the status."""
    command = shlex.join(table.command)
    if ran.status is None:
        return Measurement(command, reason=_brief(ran.output))
    value = _counted(table, ran) if table.count else _value(table.value, ran.output)
    if value is None:
        return Measurement(command, reason=f"no number in its output; {_brief(ran.told)}")
    failed = "" if ran.ok or table.count else _brief(ran.told)
    return Measurement(command, value, _shown(table.count or table.value, ran.output), failed)


def _counted(table: GateTable, ran: Ran) -> float | None:
    """Lines that match; none at all is a number only of a command that succeeded."""
    found = len(re.findall(table.count, ran.output, re.MULTILINE))
    return float(found) if found or ran.ok else None


def _value(pattern: str, output: str) -> float | None:
    """The last match: group `value`, or `part` and `rest` as a share of their sum in per cent."""
    last = None
    for match in re.finditer(pattern, output, re.MULTILINE):
        last = match.groupdict()
    if last is None:
        return None
    if "value" in last:
        return _number(last["value"])
    part, rest = _number(last.get("part")), _number(last.get("rest"))
    return None if part is None or rest is None or part + rest == 0 else PERCENT * part / (part + rest)


def _shown(pattern: str, output: str) -> str:
    """The last line that the number was read from; the reader sees what it speaks of."""
    lines = [line.strip() for line in output.splitlines() if re.search(pattern, line)]
    return lines[-1][:_SHOWN] if lines else ""


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text.replace(",", ""))
    except ValueError:
        return None


def _brief(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_SHOWN] if lines else "it said nothing"
