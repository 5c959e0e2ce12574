"""Puts an engine with a fault planted on trial: smoke, then rows in one process, without pytest between."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from conformance.catalogue import load_catalogue
from conformance.environment import usable_cores
from conformance.faults.nursery import can_be_nursed, nursed
from conformance.faults.planting import WITNESS, Fault
from conformance.manifest import LoadedManifest, load_manifest
from conformance.protocol.client import Limits
from conformance.record import RowResult
from conformance.smoke import LIMITS as SMOKE_LIMITS
from conformance.smoke import smoke
from conformance.sources.workshop import Workshop
from conformance.thresholds import load_thresholds
from conformance.trial.befallen import concluded
from conformance.trial.inventory import inventory
from conformance.trial.launching import TrialEngine, launch_in, launch_of
from conformance.trial.plan import Plan
from conformance.trial.stand import Stand
from conformance.verdicts import Verdict

_ROWS_FILE = "rows.jsonl"
_SMOKE_FILE = "smoke.json"
_WITNESS_FILE = "witness.txt"
_PATIENCE = 4.0
_DETAIL = 300


class Tried(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a trial of some rows showed: results, the failed steps of smoke, what the fault's own code left.

    `lost` are rows that it did not come to, and `cause` says why.
    """

    rows: list[RowResult]
    smoke_failures: list[str]
    witness: str
    seconds: float
    smoked: bool = True
    lost: list[str] = []
    cause: str = ""


def try_fault(
    planted: Fault | None, module: Path | None, plan: Plan, rows: Sequence[str], *, smoked: bool, nursery: Path | None
) -> Tried:
    """Try rows on the reference engine with a fault planted, or on the healthy one.

    Args:
        planted: The fault; None for the healthy control.
        module: The file outside the project that declares it, if one does.
        plan: The trial; its run directory is new.
        rows: Ids, tried in this order by one process of the engine.
        smoked: Whether smoke is tried, too.
        nursery: Where processes with faults are forked, if it is at hand.
    """
    began = time.monotonic()
    manifest, witness = faulty_manifest(planted, module, plan.directory)
    if nursery is not None and can_be_nursed(planted):
        manifest = nursed(manifest, nursery)
    failures: list[str] = []
    if smoked:
        steps = smoke(launch_in(manifest, plan.directory / "smoke"), patient(SMOKE_LIMITS))
        failures = [f"{step.name}: {step.detail}" for step in steps if not step.ok]
        (plan.directory / _SMOKE_FILE).write_bytes(msgspec.json.encode(failures))
    limits = patient(Limits(call_s=planted.call_s) if planted is not None else Limits())
    results = []
    with (plan.directory / _ROWS_FILE).open("ab") as file:
        for result in try_rows(manifest, plan, rows, limits):
            results.append(_lean(result))
            file.write(msgspec.json.encode(results[-1]) + b"\n")
            file.flush()
    return Tried(results, failures, _said(witness), round(time.monotonic() - began, 3), smoked)


def told_by(directory: Path, rows: Sequence[str], cause: str) -> Tried:
    """What a trial that was cut off had left in its directory."""
    path, smoked = directory / _ROWS_FILE, directory / _SMOKE_FILE
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    results = [msgspec.json.decode(line, type=RowResult) for line in lines]
    failures = msgspec.json.decode(smoked.read_bytes(), type=list[str]) if smoked.exists() else []
    lost = [row for row in rows if row not in {result.id for result in results}]
    seconds = round(sum(result.duration_s for result in results), 3)
    return Tried(results, failures, _said(directory / _WITNESS_FILE), seconds, smoked.exists(), lost, cause)


def patient(limits: Limits) -> Limits:
    """The limits as much longer as this machine has more to do than cores, up to fourfold."""
    busy = os.getloadavg()[0] / usable_cores()
    factor = min(max(1.0, busy), _PATIENCE)
    return dataclasses.replace(limits, call_s=limits.call_s * factor, close_s=limits.close_s * factor)


def _said(witness: Path) -> str:
    return witness.read_text(encoding="utf-8") if witness.exists() else ""


def _lean(result: RowResult) -> RowResult:
    """A result without what a kill does not rest on."""
    kept = [
        msgspec.structs.replace(finding, detail=finding.detail[:_DETAIL], rule="", limit="", detectable="")
        for finding in result.findings
        if finding.verdict is not Verdict.CORROBORATED
    ]
    return msgspec.structs.replace(
        result, observations=[], evidence=[], findings=kept, reason=result.reason[:_DETAIL], reproduce=""
    )


def faulty_manifest(planted: Fault | None, module: Path | None, directory: Path) -> tuple[LoadedManifest, Path]:
    """The reference engine's manifest with a fault in its driver, its command line or its sources; the witness file."""
    healthy = load_manifest("reference")
    witness = directory / _WITNESS_FILE
    if planted is None:
        return healthy, witness
    manifest = healthy.manifest
    if planted.edit is not None:
        tree = Workshop(healthy, directory).export("sources")
        assert manifest.source is not None
        moved = msgspec.structs.replace(manifest, source=msgspec.structs.replace(manifest.source, root=str(tree)))
        changed = planted.edit(tree, moved)
        witness.write_text(f"ran {planted.name} on {tree.name}\n", encoding="utf-8")
        return LoadedManifest(changed, healthy.path, healthy.sha256), witness
    assert manifest.driver is not None
    assert manifest.cli is not None
    command = ["{python}", "-m", "conformance.faults", planted.name]
    command += ["--module", str(module.resolve())] if module is not None else []
    environment = {WITNESS: str(witness)}
    changed = msgspec.structs.replace(
        manifest,
        driver=msgspec.structs.replace(manifest.driver, command=command, env=manifest.driver.env | environment),
        cli=msgspec.structs.replace(manifest.cli, command=[*command, "cli"], env=manifest.cli.env | environment),
    )
    return LoadedManifest(changed, healthy.path, healthy.sha256), witness


def try_rows(manifest: LoadedManifest, plan: Plan, rows: Sequence[str], limits: Limits) -> Iterator[RowResult]:
    """The result of each row, tried one after another on one engine, as a worker of a trial does."""
    catalogue, thresholds = load_catalogue(), load_thresholds()
    places = inventory(catalogue)
    with TrialEngine(launch_of(manifest, plan), limits) as engine:
        kept = []
        for row_id in rows:
            row = catalogue.row(row_id)
            check = getattr(importlib.import_module(f"checks.{Path(places[row_id].file).stem}"), row.function)
            stand = Stand(row, plan, manifest, thresholds, engine)
            began = time.monotonic()
            raised: Exception | None = None
            try:
                check(stand)
            except Exception as error:  # noqa: BLE001  whatever a check raises becomes a verdict
                raised = error
            kept += stand.kept
            yield concluded(stand, raised, time.monotonic() - began)
            shutil.rmtree(plan.directory / "exchange" / row_id, ignore_errors=True)
        for other in kept:
            other.close()
