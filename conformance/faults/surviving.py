"""Puts healthy variants on trial: a row that fails one of them cries wolf."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from conformance.catalogue import load_catalogue
from conformance.faults.healthy import CHECKPOINTS
from conformance.faults.matrix import Task, TrialLost, Trials
from conformance.faults.planting import known_faults
from conformance.faults.trying import Tried
from conformance.trial.inventory import inventory
from conformance.verdicts import Rehearsed, Verdict

_MODULE = Path(__file__).with_name("healthy.py")
_SAMPLE = (
    "F-CUDA-019", "F-MEM-024", "F-MEM-028", "F-DTYPE-047", "F-DTYPE-051", "F-LOAD-056", "F-LOAD-059", "F-LOAD-061",
    "F-LOAD-063", "F-LOAD-064", "F-LOAD-065", "F-QUAL-066", "F-QUAL-067", "F-QUAL-068", "F-QUAL-069", "F-QUAL-070",
    "F-QUAL-071", "F-QUAL-073", "F-QUAL-074", "F-QUAL-075", "F-QUAL-079", "F-QUAL-080", "F-ERR-091", "F-INT-097",
)  # fmt: skip


class Survival(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one healthy variant: the rows tried, and those that failed it, with their reasons."""

    variant: str
    what: str
    tried: list[str]
    decided: int
    failed: dict[str, str]
    ran: bool
    seconds: float


class _OnCheckpoint(Trials):
    """Trials on another checkpoint than the shipped one, whose goldens it shares."""

    def on(self, directory: Path) -> _OnCheckpoint:
        self._model = replace(self._model, directory=directory)
        return self


def healthy_rows(*, full: bool) -> list[str]:
    """The rows that variants are tried on: a sample, or all that do not build the sources."""
    catalogue = load_catalogue()
    written = inventory(catalogue)
    if not full:
        return list(_SAMPLE)
    return [row.id for row in catalogue.rows if row.id in written and row.section != "build" and row.id != "F-ERR-095"]


def run_healthy(out: Path, *, full: bool, workers: int, say: Callable[[str], None]) -> list[Survival]:
    """Try every healthy variant, and leave `healthy.json` in `out`."""
    rows = healthy_rows(full=full)
    known = known_faults(_MODULE)
    trials = Trials(known, _MODULE, out.resolve() / "process", workers, say)
    found = [
        _survival(task.fault, known[task.fault].what, tried, rows, witnessed=True)
        for task, tried in trials.run([Task(name, rows) for name in known])
    ]
    for name, make in CHECKPOINTS.items():
        place = out.resolve() / name
        place.mkdir(parents=True)
        others = _OnCheckpoint({}, None, place, workers, say)
        source = others._model.directory
        others.on(make(source, place / "checkpoint"))
        ((_, tried),) = others.run([Task("", rows)])
        found.append(_survival(name, "a checkpoint", tried, rows, witnessed=False))
    (out / "healthy.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    return found


def _survival(name: str, what: str, tried: Tried | TrialLost, rows: Sequence[str], *, witnessed: bool) -> Survival:
    if isinstance(tried, TrialLost):
        lost = dict.fromkeys(rows, str(tried).splitlines()[-1])
        return Survival(variant=name, what=what, tried=list(rows), decided=0, failed=lost, ran=False, seconds=0.0)
    failed = {
        row.id: row.reason
        for row in tried.rows
        if row.verdict in {Verdict.FALSIFIED, Verdict.ERROR} or row.rehearsed is Rehearsed.FAILED
    }
    failed |= {f"smoke: {step}": "failed" for step in tried.smoke_failures}
    decided = sum(row.verdict is not Verdict.UNTESTED or row.rehearsed is not None for row in tried.rows)
    ran = not witnessed or f"ran {name} " in tried.witness
    return Survival(
        variant=name, what=what, tried=[row.id for row in tried.rows], decided=decided, failed=failed, ran=ran,
        seconds=tried.seconds,
    )  # fmt: skip


def main() -> None:
    """Try all variants on the sample and say what failed them."""
    import sys

    survivals = run_healthy(Path(sys.argv[1]), full="--full" in sys.argv, workers=2, say=lambda _: None)
    for one in survivals:
        sys.stdout.write(f"{one.variant}: {one.decided} rows, ran {one.ran}, failed {one.failed}, {one.seconds} s\n")
    sys.exit(any(one.failed or not one.ran for one in survivals))


if __name__ == "__main__":
    main()
