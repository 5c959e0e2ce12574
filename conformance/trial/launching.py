"""How a trial starts an engine's driver process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from conformance.manifest import BrokenManifest, LoadedManifest
from conformance.protocol.client import Launch
from conformance.trial.plan import Plan

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_VISIBLE_DEVICES")
_PASSED_PREFIXES = ("COVERAGE_", "XDG_")
PROJECT = Path(__file__).resolve().parent.parent.parent


def engine_environment(extra: dict[str, str]) -> dict[str, str]:
    """A small, stated environment: what the system needs, one thread, our packages, and the manifest's own."""
    passed = {key: value for key, value in os.environ.items() if key in _PASSED_ON or key.startswith(_PASSED_PREFIXES)}
    fixed = {
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
