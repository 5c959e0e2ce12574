"""Puts an engine with a fault planted on trial: smoke, then rows in one process, without pytest between."""

from __future__ import annotations

import importlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from conformance.catalogue import load_catalogue
from conformance.faults.planting import WITNESS, Fault
from conformance.manifest import LoadedManifest, load_manifest
from conformance.protocol.client import Limits
from conformance.record import RowResult
from conformance.smoke import smoke
from conformance.sources.workshop import Workshop
from conformance.thresholds import load_thresholds
from conformance.trial.befallen import observe_failure, observe_start, observe_survival, result_of
from conformance.trial.inventory import inventory
from conformance.trial.launching import TrialEngine, launch_in, launch_of
from conformance.trial.plan import Plan
from conformance.trial.stand import Stand


class Tried(msgspec.Struct, frozen=True):
    """What a trial of some rows showed: results, the failed steps of smoke, what the fault's own code left."""

    rows: list[RowResult]
    smoke_failures: list[str]
    witness: str
    seconds: float


def try_fault(planted: Fault | None, module: Path | None, plan: Plan, rows: Sequence[str], *, smoked: bool) -> Tried:
    """Try rows on the reference engine with a fault planted, or on the healthy one.

    Args:
        planted: The fault; None for the healthy control.
        module: The file outside the project that declares it, if one does.
        plan: The trial; its run directory is new.
        rows: Ids, tried in this order by one process of the engine.
        smoked: Whether smoke is tried, too.
    """
    began = time.monotonic()
    manifest, witness = faulty_manifest(planted, module, plan.directory)
    failures = []
    if smoked:
        steps = smoke(launch_in(manifest, plan.directory / "smoke"))
        failures = [f"{step.name}: {step.detail}" for step in steps if not step.ok]
    limits = Limits(call_s=planted.call_s) if planted is not None else Limits()
    results = try_rows(manifest, plan, rows, limits)
    for scratch in ("exchange", "smoke", "sources"):
        shutil.rmtree(plan.directory / scratch, ignore_errors=True)
    said = witness.read_text(encoding="utf-8") if witness.exists() else ""
    return Tried(results, failures, said, round(time.monotonic() - began, 3))


def faulty_manifest(planted: Fault | None, module: Path | None, directory: Path) -> tuple[LoadedManifest, Path]:
    """The reference engine's manifest with a fault in its driver, its command line or its sources; the witness file."""
    healthy = load_manifest("reference")
    witness = directory / "witness.txt"
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


def try_rows(manifest: LoadedManifest, plan: Plan, rows: Sequence[str], limits: Limits) -> list[RowResult]:
    """The results of rows, tried one after another on one engine, as a worker of a trial does."""
    catalogue, thresholds = load_catalogue(), load_thresholds()
    places = inventory(catalogue)
    results = []
    with TrialEngine(launch_of(manifest, plan), limits) as engine:
        kept = []
        for row_id in rows:
            row = catalogue.row(row_id)
            check = getattr(importlib.import_module(f"checks.{Path(places[row_id].file).stem}"), row.function)
            stand = Stand(row, plan, manifest, thresholds, engine)
            began = time.monotonic()
            broken: Exception | None = None
            try:
                check(stand)
            except Exception as error:  # noqa: BLE001  whatever a check raises becomes a verdict
                broken = None if observe_failure(stand, error) else error
            if broken is None:
                observe_survival(stand)
                observe_start(stand)
            kept += stand.kept
            results.append(result_of(stand, broken, round(time.monotonic() - began, 3)))
            shutil.rmtree(plan.directory / "exchange" / row_id, ignore_errors=True)
        for other in kept:
            other.close()
    return results
