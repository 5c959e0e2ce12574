"""Puts healthy variants on trial: a row that fails one of them cries wolf."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from conformance.catalogue import load_catalogue
from conformance.corpus.models import resolve_model
from conformance.environment import cpu_model
from conformance.faults.healthy import CHECKPOINTS
from conformance.faults.ledger import write_whole
from conformance.faults.matrix import alarmed
from conformance.faults.planting import known_faults
from conformance.faults.pool import Bench, Task, Trials
from conformance.faults.trying import Tried
from conformance.probes.nvml import gpus
from conformance.revision import sources_name
from conformance.trial.inventory import inventory
from conformance.verdicts import Verdict

HEALTHY_FILE = "healthy.json"
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
    revision: str = ""


class Survivals(msgspec.Struct, frozen=True, kw_only=True):
    """All variants on one machine, each with the sources it was tried with."""

    machine: str
    device: str
    variants: list[Survival]


def all_variants() -> list[str]:
    """Names of the variants of the process, then of the checkpoints."""
    return [*known_faults(_MODULE), *CHECKPOINTS]


def healthy_rows(*, full: bool) -> list[str]:
    """The rows that variants are tried on: a sample, or all that do not build the sources."""
    catalogue = load_catalogue()
    written = inventory(catalogue)
    if not full:
        return list(_SAMPLE)
    return [row.id for row in catalogue.rows if row.id in written and row.section != "build" and row.id != "F-ERR-095"]


def run_healthy(
    out: Path, *, full: bool, workers: int, limit_s: float, say: Callable[[str], None], names: Sequence[str] = ()
) -> Survivals:
    """Try every healthy variant, or those named, that `healthy.json` in `out` does not hold yet, and keep it there."""
    rows = healthy_rows(full=full)
    devices = gpus()
    found = Survivals(
        machine="gpu" if devices else "cpu",
        device=devices[0].name if devices else cpu_model(),
        variants=[],
    )
    path = out / HEALTHY_FILE
    if path.exists():
        found = msgspec.json.decode(path.read_bytes(), type=Survivals)
    names = [name for name in names or all_variants() if name not in {each.variant for each in found.variants}]
    revision = sources_name()
    for survival in _survivals(out.resolve(), rows, workers, limit_s, say, names):
        named = msgspec.structs.replace(survival, revision=revision)
        found = msgspec.structs.replace(found, variants=[*found.variants, named])
        write_whole(path, msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    return found


def _survivals(
    out: Path, rows: list[str], workers: int, limit_s: float, say: Callable[[str], None], names: Sequence[str]
) -> Iterator[Survival]:
    out.mkdir(parents=True, exist_ok=True)
    known = known_faults(_MODULE)
    bench = Bench(known, _MODULE, out / "process", workers, say, limit_s)
    for task, tried in Trials(bench).run([Task(name, rows) for name in known if name in names]):
        yield _survival(task.fault, known[task.fault].what, tried, witnessed=True)
    shipped = resolve_model(None)
    for name, make in CHECKPOINTS.items():
        if name not in names:
            continue
        place = out / name
        place.mkdir()
        model = replace(shipped, directory=make(shipped.directory, place / "checkpoint"))
        ((_, tried),) = Trials(replace(bench, faults={}, module=None), model).run([Task("", rows)])
        yield _survival(name, "a checkpoint", tried, witnessed=False)


def _survival(name: str, what: str, tried: Tried, *, witnessed: bool) -> Survival:
    failed = {row.id: row.reason for row in tried.rows if alarmed(row)}
    failed |= {f"smoke: {step}": "failed" for step in tried.smoke_failures}
    failed |= dict.fromkeys(tried.lost, tried.cause)
    decided = sum(row.verdict is not Verdict.UNTESTED or row.rehearsed is not None for row in tried.rows)
    return Survival(
        variant=name, what=what, tried=[row.id for row in tried.rows], decided=decided, failed=failed,
        ran=not witnessed or f"ran {name} " in tried.witness, seconds=tried.seconds,
    )  # fmt: skip


def _said(line: str) -> None:
    sys.stderr.write(line + "\n")


def main() -> None:
    """Try all variants and say what failed them."""
    from conformance.faults.running import confined

    parser = argparse.ArgumentParser(description="Healthy variants: no row may fail one.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--full", action="store_true", help="all rows, instead of a sample")
    parser.add_argument("--variant", action="append", default=[], help="this variant; repeatable")
    parser.add_argument("-n", "--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds a variant may take")
    parser.add_argument("--devices", default="", help="GPUs to use, as in `falsify severity`")
    given = parser.parse_args()
    confined(given.devices)
    survivals = run_healthy(
        given.out, full=given.full, workers=given.workers, limit_s=given.limit, names=given.variant,
        say=_said,
    )  # fmt: skip
    for one in survivals.variants:
        sys.stdout.write(f"{one.variant}: {one.decided} rows, ran {one.ran}, failed {one.failed}, {one.seconds} s\n")
    sys.exit(any(one.failed or not one.ran for one in survivals.variants))


if __name__ == "__main__":
    main()
