"""Runs a trial: plan, checks by pytest in this process, record, reports, exit code."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Literal

import msgspec
import pytest

from conformance.catalogue import NO_DEVICE, Catalogue, load_catalogue
from conformance.corpus.models import ModelUnderTrial, resolve_model
from conformance.environment import fingerprint
from conformance.manifest import LoadedManifest, load_manifest
from conformance.plugin import PROPERTY
from conformance.probes.nvml import Gpu, gpus
from conformance.protocol.client import Engine
from conformance.protocol.failures import DriverFailure, EngineRefused
from conformance.record import SCHEMA_VERSION, EngineIdentity, Header, ModelIdentity, Record, RowResult
from conformance.revision import revision
from conformance.thresholds import load_thresholds
from conformance.trial.inventory import CHECKS_DIRECTORY, inventory
from conformance.trial.launching import launch_of
from conformance.trial.outcome import INTERRUPTED, NOT_SELECTED, NOT_WRITTEN
from conformance.trial.plan import Plan
from conformance.trial.recorder import Listener, Recorder, now, untested
from conformance.verdicts import Verdict

Ended = Literal["completed", "interrupted", "broken"]


class GpuRequired(Exception):
    """`--require-gpu` on a machine without a visible NVIDIA device."""

    def __init__(self) -> None:
        super().__init__("--require-gpu: no NVIDIA device is visible, and a rehearsal was not asked for")


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for."""

    engine: str = "reference"
    model: str | None = None
    words: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    seed: int = 0
    shuffle: bool = False
    require_gpu: bool = False
    out: Path = Path("falsify-run")
    workers: int = 1
    profile: Literal["default", "long"] = "default"
    command: tuple[str, ...] = ()


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


def prepare(options: Options) -> Ready:
    """Validate the request and fix the plan. Nothing of the engine has run yet except for asking its name.

    Raises:
        UnknownSelector, UnknownEngine, BrokenManifest, CatalogueMismatch, GpuRequired, DeviceUnusable, and what
        `resolve_model` raises.
    """
    catalogue = load_catalogue()
    written = inventory(catalogue)
    chosen = catalogue.select(options.words, options.sections)
    manifest = load_manifest(options.engine)
    devices = gpus()
    if options.require_gpu and not devices:
        raise GpuRequired
    model = resolve_model(options.model)
    directory = new_run_directory(options.out)
    plan = _plan(options, directory, manifest, model, [row.id for row in chosen if row.id in written], bool(devices))
    plan.write()
    absent = {row.id: NOT_SELECTED for row in catalogue.rows if row not in chosen}
    absent |= {row.id: _why_not_written(row.needs_cuda, bool(devices)) for row in chosen if row.id not in written}
    header = _header(options, plan, manifest, catalogue, devices)
    return Ready(plan, header, _phases(catalogue, plan), absent)


def run_trial(ready: Ready, workers: int, listener: Listener) -> Trial:
    """Run the checks and leave a valid record, whatever happens short of SIGKILL."""
    directory = ready.plan.directory
    with Recorder(directory, ready.header, listener) as recorder:
        ended: Ended = "completed"
        with stoppable():
            try:
                for phase, rows in enumerate(ready.phases):
                    if rows:
                        ended = _run_phase(ready.plan, rows, recorder, workers if phase == 0 else 1)
                    if ended != "completed":
                        break
            except KeyboardInterrupt:
                ended = "interrupted"
        record = recorder.finish(ended, lambda row_id: _absent(row_id, ready.absent, ended))
    shutil.rmtree(directory / "exchange", ignore_errors=True)
    return Trial(directory, record)


def new_run_directory(out: Path) -> Path:
    """A directory that no other trial uses, under `out`; `latest` points to it.

    Raises:
        OSError: it cannot be made.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    directory = (out / f"{stamp}-{secrets.token_hex(3)}").absolute()
    directory.mkdir(parents=True)
    link = out / "latest"
    fresh = out / f".latest-{secrets.token_hex(3)}"
    fresh.symlink_to(directory.name, target_is_directory=True)
    fresh.replace(link)
    return directory


@contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first of SIGINT, SIGTERM and SIGHUP into KeyboardInterrupt and ignore all that follow."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, stop) for each in caught}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


class _Relay:
    """Carries results from pytest's reports to the recorder."""

    def __init__(self, recorder: Recorder, functions: dict[str, str]) -> None:
        self._recorder = recorder
        self._functions = functions

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        row_id = self._functions.get(nodeid.rsplit("::", 1)[-1])
        if row_id is not None:
            self._recorder.started(row_id)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for key, value in report.user_properties if report.when == "call" else ():
            if key == PROPERTY:
                self._recorder.record(msgspec.json.decode(str(value), type=RowResult))
        if report.failed and report.when != "call":
            row_id = self._functions[report.nodeid.rsplit("::", 1)[-1]]
            if row_id not in self._recorder.results:
                reason = f"{report.when} failed: {report.longreprtext.strip().splitlines()[-1]}"
                self._recorder.record(RowResult(row_id, Verdict.ERROR, reason=reason))


def _run_phase(plan: Plan, rows: Sequence[str], recorder: Recorder, workers: int) -> Ended:
    phase_plan = msgspec.structs.replace(plan, rows=list(rows))
    functions = {load_catalogue().row(row_id).function: row_id for row_id in rows}
    with _pytest_environment(plan.directory):
        code = pytest.main(
            _pytest_arguments(phase_plan.write(), plan.directory, workers), [_Relay(recorder, functions)]
        )
    if code is pytest.ExitCode.INTERRUPTED:
        return "interrupted"
    return "completed" if code in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED} else "broken"


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
    for name in ("PYTEST_ADDOPTS", "PYTEST_PLUGINS", "CI"):
        os.environ.pop(name, None)
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


def _plan(  # noqa: PLR0917  one call site
    options: Options,
    directory: Path,
    manifest: LoadedManifest,
    model: ModelUnderTrial,
    rows: list[str],
    gpu: bool,
) -> Plan:
    identity = ModelIdentity(model.name, model.kind, model.sha256, model.nbytes)
    return Plan(
        run_dir=str(directory),
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
    )


def _reproduce(options: Options) -> str:
    words = ["falsify run"]
    if options.engine != "reference":
        words.append(f"--engine {options.engine}")
    if options.model:
        words.append(f"--model {options.model}")
    if options.profile != "default":
        words.append(f"--profile {options.profile}")
    return " ".join([*words, f"--seed {options.seed}"])


def _header(
    options: Options, plan: Plan, manifest: LoadedManifest, catalogue: Catalogue, devices: Sequence[Gpu]
) -> Header:
    ran = revision()
    return Header(
        schema=SCHEMA_VERSION,
        trial_id=plan.directory.name,
        started=now(),
        engine=_identity(manifest, plan),
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


def _identity(manifest: LoadedManifest, plan: Plan) -> EngineIdentity:
    """What the manifest says and, if its driver starts, what the driver says; a dead one is F-BUILD-001's finding."""
    table = manifest.manifest.engine
    said = EngineIdentity(
        name=table.name,
        version=table.version,
        manifest=manifest.path.name,
        manifest_sha256=manifest.sha256,
        precision=table.precision,
        is_reference=table.reference,
    )
    if manifest.manifest.driver is None:
        return said
    with Engine(launch_of(manifest, plan)) as engine:
        try:
            info = engine.info
        except (DriverFailure, EngineRefused):
            return said
    offered = [capability.value for capability in info.capabilities]
    return msgspec.structs.replace(said, version=info.version, capabilities=offered)


def _phases(catalogue: Catalogue, plan: Plan) -> tuple[tuple[str, ...], ...]:
    """Untimed rows first; then timed ones, alone on the machine."""
    untimed = tuple(row_id for row_id in plan.rows if not catalogue.row(row_id).alone)
    return untimed, tuple(row_id for row_id in plan.rows if catalogue.row(row_id).alone)


def _why_not_written(needs_cuda: bool, gpu: bool) -> str:
    return NO_DEVICE if needs_cuda and not gpu else NOT_WRITTEN


def _absent(row_id: str, reasons: dict[str, str], ended: Ended) -> RowResult:
    if row_id in reasons:
        return untested(row_id, reasons[row_id])
    if ended == "interrupted":
        return untested(row_id, INTERRUPTED)
    return RowResult(row_id, Verdict.ERROR, reason="the check left no result")
