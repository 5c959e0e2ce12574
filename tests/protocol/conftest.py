import os
import sys
from pathlib import Path

import psutil
import pytest

from conformance.protocol.client import Launch

ROOT = Path(__file__).parents[2]
DRIVERS = ROOT / "tests" / "drivers"
WORKER = "TESTED_BY"


def environment():
    inherited = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE")}
    return {**inherited, "PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), WORKER: str(os.getpid())}


@pytest.fixture
def hostile(tmp_path):
    def launch(name, *, startup_timeout=5.0):
        command = [sys.executable, "-I", "-S", str(DRIVERS / "hostile.py"), name]
        return Launch(command, environment(), tmp_path, tmp_path, startup_timeout=startup_timeout)

    return launch


@pytest.fixture
def good(tmp_path):
    command = [sys.executable, str(DRIVERS / "good.py")]
    return Launch(command, environment(), tmp_path, tmp_path, startup_timeout=20.0)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    """No process started during a test outlives it: neither a descendant of ours nor anything that slipped away."""
    before = {process.pid for process in psutil.process_iter()}
    yield
    left = [process for process in psutil.Process().children(recursive=True) if process.pid not in before]
    left += [process for process in _marked() if process.pid not in before]
    assert not left, left


def _marked():
    for process in psutil.process_iter():
        try:
            if process.environ().get(WORKER) == str(os.getpid()) and process.status() != psutil.STATUS_ZOMBIE:
                yield process
        except psutil.Error:
            continue
