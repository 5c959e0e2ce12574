"""What the tests of whole trials share: engines' manifests, the command line as a process, and who is still alive."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from conformance.corpus.models import resolve_model
from conformance.record import ModelIdentity, read_record
from conformance.trial.plan import Plan

ROOT = Path(__file__).parents[3]
DRIVERS = ROOT / "tests" / "drivers"
TIMEOUT_S = 120


def write_manifest(directory, way="honest", *, command=None, env=None, startup=30.0, more=""):
    """A manifest in `directory`: the parrot in one of its ways, or any other command."""
    command = command or ["{python}", str(DRIVERS / "parrot.py"), way]
    variables = ", ".join(f"{key} = {json.dumps(value)}" for key, value in (env or {}).items())
    path = directory / f"{way}.toml"
    path.write_text(
        f'[engine]\nname = "parrot"\n\n[driver]\ncommand = {json.dumps(command)}\n'
        f"env = {{{variables}}}\nstartup_timeout_s = {startup}\n{more}"
    )
    return path


def environment(**extra):
    """A user's environment: nothing of pytest's, and the project where an installed package would be."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "HYPOTHESIS"))}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "dumb", **extra}


def command(*arguments):
    return [sys.executable, "-m", "conformance", "run", *map(str, arguments)]


def falsify(*arguments, **options):
    """`falsify run` as a process to its end."""
    options = {"env": environment(), "cwd": ROOT, **options}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options
    )


def started(*arguments, **options):
    """`falsify run` as a process of its own process group, as a terminal starts it."""
    options = {"env": environment(), "cwd": ROOT, "start_new_session": True, **options}
    return subprocess.Popen(command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def record_in(out):
    """The one record below a directory of runs."""
    (path,) = (each for each in out.glob("*/record.jsonl") if not each.parent.is_symlink())
    return read_record(path)


def wait_for(condition, what, seconds=60.0):
    """The condition's value once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s in vain: {what}")


def processes_of(directory):
    """Living processes that work in a directory or name it in their arguments, this one and its parents apart."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        try:
            about = " ".join([process.cwd(), *process.cmdline()])
            if process.pid not in mine and process.status() != psutil.STATUS_ZOMBIE and str(directory) in about:
                found.append(process)
        except psutil.Error:
            continue
    return found


def end_group(process):
    """End what a failed test left, so that nothing outlives it."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def make_plan(directory, **changes):
    model = resolve_model("random")
    fields = {
        "run_dir": str(directory),
        "engine": "reference",
        "model": ModelIdentity("random", "random", model.sha256),
        "model_dir": str(model.directory),
        "goldens_dir": str(model.goldens_directory),
        "rows": ["F-MEM-029"],
        "seed": 7,
        "shuffle": False,
        "gpu": False,
        "is_reference": True,
        "reproduce": "falsify run",
    }
    return Plan(**(fields | changes))
