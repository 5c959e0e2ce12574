"""Runs tests in forks of one process that imported what no mutant changes: `python forks.py` in a copy of the project.

Each line of standard input is one run, `{"module": "a.b", "tests": […], "marks": "not slow", "seconds": 12.0}`; each
line of standard output is how it ended, `{"ended": 0, "seconds": 0.4, "output": "…"}`: pytest's exit code, 70 if the
module cannot be imported, or null for a run that was stopped at its time limit. Standard input's end is this process's.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest

# Third parties' modules only: one of the project's would be the unchanged one in every run. What is missing here is
# missing for the tests, too, and they say so.
_IMPORTED = ("hypothesis.strategies", "jsonschema", "msgspec", "numpy", "safetensors", "scipy.special", "scipy.stats")
_OPTIONS = ("-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin")
_SEED = "--hypothesis-seed=0"
_MEMORY_BYTES = 6 << 30
_POLL_S = 0.005
_UNIMPORTABLE, _CRASHED = 70, 71
_SHOWN = 1500


def main() -> None:
    """Serve runs until there are no more."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    for name in _IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    scratch = Path("scratch").resolve()
    os.environ |= {"TMPDIR": str(scratch), "HYPOTHESIS_STORAGE_DIRECTORY": str(scratch / "hypothesis")}
    for line in sys.stdin:
        # What one mutant left behind, a failing example above all, must not help to kill the next.
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        sys.stdout.write(json.dumps(_run(scratch, **json.loads(line))) + "\n")
        sys.stdout.flush()


def _run(scratch: Path, module: str, tests: list[str], marks: str, seconds: float) -> dict[str, Any]:
    output = scratch / "output"
    began = time.monotonic()
    child = os.fork()
    if not child:
        _child(output, module, [*_OPTIONS, _SEED, "-m", marks, f"--basetemp={scratch / 'pytest'}", *tests])
    ended: int | None = None
    while time.monotonic() - began < seconds:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            ended = os.waitstatus_to_exitcode(status)
            break
        time.sleep(_POLL_S)
    # The whole group, for a run that was stopped and for what a test started and left.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if ended is None:
        os.waitpid(child, 0)
    told = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    return {"ended": ended, "seconds": time.monotonic() - began, "output": told[-_SHOWN:]}


def _child(output: Path, module: str, arguments: list[str]) -> None:
    code = _CRASHED
    try:
        os.setsid()
        file = os.open(output, os.O_WRONLY | os.O_CREAT)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((null, 0), (file, 1), (file, 2)):
            os.dup2(source, target)
        # A mutant that never stops collecting ends in a MemoryError and not the machine.
        resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
        code = int(pytest.main(arguments)) if _importable(module) else _UNIMPORTABLE
        sys.stdout.flush()
    finally:
        # Also after an exception: whatever pytest did not end itself is no failure of a test.
        os._exit(code)


def _importable(module: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # as the project's tests have it
            importlib.import_module(module)
    except Exception:  # noqa: BLE001  whatever a changed module raises
        return False
    return True


if __name__ == "__main__":
    main()
