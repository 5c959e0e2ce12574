"""How a trial starts an engine's driver process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from conformance.manifest import BrokenManifest, LoadedManifest
from conformance.protocol.client import Driver, Engine, Launch, Limits
from conformance.protocol.failures import DriverNotStarted
from conformance.trial.plan import Plan

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES")
_PASSED_PREFIXES = ("COVERAGE_", "XDG_")
PROJECT = Path(__file__).resolve().parent.parent.parent


def engine_environment(extra: dict[str, str]) -> dict[str, str]:
    """A small, stated environment: what the system needs, NVML's order of devices, one thread, our packages, extra."""
    passed = {key: value for key, value in os.environ.items() if key in _PASSED_ON or key.startswith(_PASSED_PREFIXES)}
    fixed = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "OMP_NUM_THREADS": "1",
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": str(PROJECT),
        "TOKENIZERS_PARALLELISM": "false",
    }
    return passed | fixed | extra


def launch_of(manifest: LoadedManifest, plan: Plan, *, threads: int = 1, python: str = sys.executable) -> Launch:
    """The launch of an engine for a trial; its tensors go to `exchange/` of the run directory.

    Raises:
        BrokenManifest: the manifest has no driver.
    """
    return launch_in(manifest, plan.directory / "exchange", seed=plan.seed, threads=threads, python=python)


def launch_in(
    manifest: LoadedManifest, exchange: Path, *, seed: int = 0, threads: int = 1, python: str = sys.executable
) -> Launch:
    """The launch of an engine whose tensors go to `exchange`.

    Raises:
        BrokenManifest: the manifest has no driver.
    """
    driver = manifest.manifest.driver
    if driver is None:
        raise BrokenManifest(manifest.path, "no [driver] table: nothing to start")
    exchange.mkdir(parents=True, exist_ok=True)
    return Launch(
        command=manifest.filled(driver.command, python=python),
        env=engine_environment(driver.env | {"OMP_NUM_THREADS": str(threads)}),
        cwd=exchange,
        run_dir=exchange,
        seed=seed,
        threads=threads,
        startup_timeout=driver.startup_timeout_s,
    )


class TrialEngine(Engine):
    """The engine that a trial's rows share: one that never started is not waited for again, row after row."""

    _ATTEMPTS = 2

    def __init__(self, launch: Launch, limits: Limits | None = None) -> None:
        super().__init__(launch, limits)
        self._never_started: DriverNotStarted | None = None

    def _start(self) -> Driver:
        known = self._never_started
        if known is not None and self.starts >= self._ATTEMPTS:
            raise DriverNotStarted(known.command, cause=known.cause, stderr_tail=known.stderr_tail)
        try:
            driver = super()._start()
        except DriverNotStarted as failure:
            if self.starts == 1 or self._never_started is not None:
                self._never_started = failure
            raise
        self._never_started = None
        return driver
