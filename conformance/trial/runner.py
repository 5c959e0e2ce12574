"""Runs a trial: plan, checks by pytest in this process, record, reports, exit code."""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Literal

import msgspec
import pytest

from conformance.catalogue import Catalogue, load_catalogue
from conformance.corpus.models import ModelUnderTrial, resolve_model
from conformance.environment import fingerprint
from conformance.manifest import BrokenManifest, LoadedManifest, load_manifest, require_installed
from conformance.probes.nvml import Gpu, gpus
from conformance.protocol.client import Engine
from conformance.protocol.failures import DriverFailure
from conformance.record import SCHEMA_VERSION, EngineIdentity, Header, ModelIdentity, Record, RowResult, Shard
from conformance.reported import Reported
from conformance.revision import revision
from conformance.thresholds import load_thresholds
from conformance.trial.host_lock import leased_gpu
from conformance.trial.inputs import inputs_of
from conformance.trial.inventory import CHECKS_DIRECTORY, inventory
from conformance.trial.launching import launch_of
from conformance.trial.outcome import INTERRUPTED, NOT_SELECTED, NOT_WRITTEN
from conformance.trial.plan import DEFAULT_PEER, Plan
from conformance.trial.recorder import Ended, Listener, Recorder, now, untested
from conformance.trial.relay import NO_RESULT, Relay
from conformance.trial.room import room_is_gone
from conformance.trial.sharding import Part
from conformance.trial.signals import Stop
from conformance.verdicts import Verdict

_SHOWN_VERSION = 200


class GpuRequired(Reported):
    """`--require-gpu` on a machine without a visible NVIDIA device."""

    def __init__(self) -> None:
        super().__init__("--require-gpu: no NVIDIA device is visible, and a rehearsal was not asked for")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for."""

    engine: str = "reference"
    peer: str | None = None
    model: str | None = None
    words: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    seed: int = 0
    shuffle: bool = False
    require_gpu: bool = False
    rehearse: bool = False
    out: Path = Path("falsify-run")
    workers: int = 1
    profile: Literal["default", "long"] = "default"
    command: tuple[str, ...] = ()
    part: Part | None = None


class Trial(msgspec.Struct, frozen=True):
    """A finished trial: its directory and its record."""

    directory: Path
    record: Record


class Ready(msgspec.Struct, frozen=True):
    """Everything fixed before the first row: the plan, the header, and which rows run in which phase."""

    plan: Plan
    header: Header
    phases: tuple[tuple[str, ...], ...]
    absent: dict[str, str]
    inputs_sha256: str


def prepare(options: Options) -> Ready:
    """Validate the request, fix the plan and give it its run directory; nothing of the engine has run yet.

    Raises:
        DiskFull, OSError with the path that cannot be written, and what `plan_trial` raises.
    """
    return placed(plan_trial(options), options.out)


def plan_trial(options: Options) -> Ready:
    """Validate the request and fix everything but the run directory; nothing is written.

    Raises:
        UnknownSelector, NotAShard, UnknownEngine, BrokenManifest, EngineNotInstalled, CatalogueMismatch, GpuRequired,
            DeviceUnusable, and what `resolve_model` raises.
    """
    catalogue = load_catalogue()
    written = inventory(catalogue)
    whole = catalogue.select(options.words, options.sections)
    mine = options.part.rows([row.id for row in whole]) if options.part else [row.id for row in whole]
    chosen = [row for row in whole if row.id in mine]
    manifest = load_manifest(options.engine)
    if manifest.manifest.driver is None:
        raise BrokenManifest(manifest.path, "no [driver] table: nothing to start")
    require_installed(manifest)
    devices = [] if options.rehearse else gpus()
    if options.require_gpu and not devices:
        raise GpuRequired
    model = resolve_model(options.model)
    absent = {row.id: NOT_WRITTEN for row in catalogue.rows if row.id not in written}
    absent |= _left_out(manifest, catalogue)
    absent |= {row.id: NOT_SELECTED for row in catalogue.rows if row not in chosen}
    plan = _plan(options, manifest, model, [row.id for row in chosen if row.id not in absent], bool(devices))
    header = _header(options, plan, manifest, catalogue, devices)
    plan = msgspec.structs.replace(plan, device=_device_name(header, plan))
    inputs = inputs_of(header, manifest, model.goldens_directory, shuffle=options.shuffle).sha256
    if options.part is not None:
        shard = Shard(options.part.index, options.part.of, header.selected, inputs)
        header = msgspec.structs.replace(header, selected=mine, shard=shard)
    return Ready(plan, header, _phases(catalogue, plan), absent, inputs)


def placed(ready: Ready, out: Path) -> Ready:
    """The trial with a new run directory under `out`, and its plan in it.

    Raises:
        DiskFull, OSError: nothing can be written there.
    """
    directory = new_run_directory(out)
    full = room_is_gone(directory)
    if full is not None:
        shutil.rmtree(directory)
        raise full
    plan = msgspec.structs.replace(ready.plan, run_dir=str(directory))
    plan.write()
    header = msgspec.structs.replace(ready.header, trial_id=directory.name)
    return msgspec.structs.replace(ready, plan=plan, header=header)


def run_trial(ready: Ready, workers: int, listener: Listener, stop: Stop) -> Trial:
    """Run the checks and leave a valid record, whatever happens short of SIGKILL.

    Raises:
        RecordUnwritable: what there is of the record has no footer.
    """
    directory = ready.plan.directory
    header = msgspec.structs.replace(
        ready.header, engine=stop.attempt(partial(_introduced, ready), ready.header.engine)
    )
    try:
        with _device(ready, stop), Recorder(directory, header, listener) as recorder:
            ended, cause = stop.attempt(partial(_run_phases, ready, recorder, workers, stop), ("interrupted", ""))
            record = recorder.finish(ended, partial(_absent, ready.absent, ended, cause))
    finally:
        shutil.rmtree(directory / "exchange", ignore_errors=True)
    return Trial(directory, record)


def _device(ready: Ready, stop: Stop) -> AbstractContextManager[None]:
    """The trial's GPU, which no other trial uses until this one is over; nothing in a rehearsal."""
    if not ready.plan.gpu:
        return nullcontext()
    device = gpus()[ready.plan.device_index]
    waiting = partial(_say, f"waiting for {device.name}: another trial has it")
    return leased_gpu(device.uuid, waiting=waiting, stopped=lambda: stop.requested)


def _device_name(header: Header, plan: Plan) -> str:
    """The device's hash in the fingerprint; nothing in a rehearsal."""
    return str(header.environment["gpus"][plan.device_index]["uuid"]) if plan.gpu else ""


def _say(message: str) -> None:
    with suppress(OSError):
        sys.stderr.write(f"falsify: {message}\n")


def new_run_directory(out: Path) -> Path:
    """A directory that no other trial uses, under `out`; `latest` points to it unless that name is taken.

    Raises:
        OSError: it cannot be made.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    directory = (out / f"{stamp}-{secrets.token_hex(3)}").absolute()
    directory.mkdir(parents=True)
    link = out / "latest"
    if link.is_symlink() or not link.exists():
        fresh = out / f".latest-{secrets.token_hex(3)}"
        fresh.symlink_to(directory.name, target_is_directory=True)
        fresh.replace(link)
    return directory


def _run_phases(ready: Ready, recorder: Recorder, workers: int, stop: Stop) -> tuple[Ended, str]:
    """How the checks ended and, where they broke, why."""
    for phase, rows in enumerate(ready.phases):
        if rows:
            ended, cause = _run_phase(ready.plan, rows, recorder, workers if phase == 0 else 1, stop)
            if ended != "completed":
                return ended, cause
    return "completed", ""


def _run_phase(plan: Plan, rows: Sequence[str], recorder: Recorder, workers: int, stop: Stop) -> tuple[Ended, str]:
    phase_plan = msgspec.structs.replace(plan, rows=list(rows))
    relay = Relay(recorder, {load_catalogue().row(row_id).function: row_id for row_id in rows}, stop)
    with _pytest_environment(plan.directory):
        code = pytest.main(_pytest_arguments(phase_plan.write(), plan.directory, workers), [relay])
    if stop.requested:
        return "interrupted", ""
    if relay.broken or code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        return "broken", relay.broken or f"pytest ended with {code!r}"
    return "completed", ""


def _pytest_arguments(plan_file: Path, directory: Path, workers: int) -> list[str]:
    ini = directory / "pytest.ini"
    ini.write_text("[pytest]\npython_files = test_*.py\naddopts =\n")
    arguments = [f"-c{ini}", f"--rootdir={CHECKS_DIRECTORY}", f"--confcutdir={CHECKS_DIRECTORY}"]
    arguments += ["-pno:cacheprovider", "-pno:terminal", "-pconformance.plugin", f"--falsify-plan={plan_file}"]
    if workers > 1:
        arguments += ["-pxdist.plugin", f"-n{workers}", "--dist=loadscope", "--maxprocesses=64"]
    return [*arguments, str(CHECKS_DIRECTORY)]


@contextmanager
def _pytest_environment(directory: Path) -> Iterator[None]:
    """Pytest sees our checks and nothing of the project it is started in."""
    before = dict(os.environ)
    here = Path.cwd()
    for name in before:
        if name == "CI" or name.startswith(("PYTEST_", "HYPOTHESIS_")):
            del os.environ[name]
    os.environ |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONSAFEPATH": "1"}
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(directory / "hypothesis")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(here)
        os.environ.clear()
        os.environ.update(before)


def _plan(
    options: Options,
    manifest: LoadedManifest,
    model: ModelUnderTrial,
    rows: list[str],
    gpu: bool,
) -> Plan:
    identity = ModelIdentity(model.name, model.kind, model.sha256, model.nbytes)
    return Plan(
        run_dir="",
        engine=str(manifest.path),
        model=identity,
        model_dir=str(model.directory),
        goldens_dir=str(model.goldens_directory) if model.goldens_directory else None,
        rows=rows,
        seed=options.seed,
        shuffle=options.shuffle,
        gpu=gpu,
        is_reference=manifest.manifest.engine.reference,
        reproduce=_reproduce(options),
        profile=options.profile,
        peer=str(load_manifest(options.peer).path) if options.peer else DEFAULT_PEER,
    )


def _left_out(loaded: LoadedManifest, catalogue: Catalogue) -> dict[str, str]:
    """Rows that the manifest says make no sense for its engine, with its reason."""
    reasons = loaded.manifest.untested
    if unknown := set(reasons) - {row.id for row in catalogue.rows} - {row.section for row in catalogue.rows}:
        raise BrokenManifest(loaded.path, f"[untested] names {min(unknown)!r}, neither a row nor a section")
    told = {row.id: reasons.get(row.id, reasons.get(row.section)) for row in catalogue.rows}
    return {row_id: f"the manifest says: {reason}" for row_id, reason in told.items() if reason}


def _reproduce(options: Options) -> str:
    words = ["falsify", "run"]
    if options.engine != "reference":
        words += ["--engine", options.engine]
    if options.model:
        words += ["--model", options.model]
    if options.peer:
        words += ["--peer", options.peer]
    if options.rehearse:
        words += ["--rehearse"]
    if options.profile != "default":
        words += ["--profile", options.profile]
    return shlex.join([*words, "--seed", str(options.seed)])


def _header(
    options: Options, plan: Plan, manifest: LoadedManifest, catalogue: Catalogue, devices: Sequence[Gpu]
) -> Header:
    ran = revision()
    return Header(
        schema=SCHEMA_VERSION,
        trial_id="",
        started=now(),
        engine=_identity(manifest),
        model=plan.model,
        rows=[row.id for row in catalogue.rows],
        selected=[row.id for row in catalogue.select(options.words, options.sections)],
        rehearsal=not plan.gpu,
        seed=plan.seed,
        revision=ran.name,
        revision_dirty=ran.dirty,
        catalogue_sha256=catalogue.sha256,
        thresholds_sha256=load_thresholds().sha256,
        environment=fingerprint(devices),
        command=list(options.command),
        profile=plan.profile,
    )


def _identity(manifest: LoadedManifest) -> EngineIdentity:
    table = manifest.manifest.engine
    return EngineIdentity(
        name=table.name,
        version=table.version,
        manifest=manifest.path.name,
        manifest_sha256=manifest.sha256,
        precision=table.precision,
        is_reference=table.reference,
    )


def _introduced(ready: Ready) -> EngineIdentity:
    """The identity with what the driver says, if it starts; a dead one is F-BUILD-001's finding."""
    said = ready.header.engine
    with Engine(launch_of(load_manifest(ready.plan.engine), ready.plan)) as engine:
        try:
            info = engine.info
        except DriverFailure:
            return said
    offered = [capability.value for capability in info.capabilities]
    return msgspec.structs.replace(said, version=info.version[:_SHOWN_VERSION], capabilities=offered)


def _phases(catalogue: Catalogue, plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Untimed rows first; then timed ones, alone on the machine."""
    untimed = tuple(row_id for row_id in plan.rows if not catalogue.row(row_id).alone)
    return untimed, tuple(row_id for row_id in plan.rows if catalogue.row(row_id).alone)


def _absent(reasons: dict[str, str], ended: Ended, cause: str, row_id: str) -> RowResult:
    if row_id in reasons:
        return untested(row_id, reasons[row_id])
    if ended == "interrupted":
        return untested(row_id, INTERRUPTED)
    return RowResult(row_id, Verdict.ERROR, reason=f"{NO_RESULT}: {cause}" if cause else NO_RESULT)
