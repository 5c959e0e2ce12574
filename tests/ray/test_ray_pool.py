"""Cells on a cluster of four workers, one of which is killed in the middle: every cell still has its record."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from conformance.matrix.record import MATRIX_FILE, MatrixRecord
from conformance.verdicts import ExitCode

# Without the extra, this very directory is a package named `ray`.
pytest.importorskip("ray.exceptions", reason="the extra `ray` is not installed; `nox -s ray` installs it")

ROOT = Path(__file__).parents[2]
ENGINES, MODELS = ("a", "b", "c"), ("random", "fixture")
WORKERS = 4


def environment():
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "HYPOTHESIS"))}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "dumb", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture
def cluster():
    """Four machines with one processor each, on this host: their process, the address, and each machine's pid."""
    words = [sys.executable, str(ROOT / "tests" / "ray" / "cluster.py"), str(WORKERS)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
    ) as process:
        address, *machines = process.stdout.readline().split() or [""]
        assert address, "the cluster did not start"
        yield process, address, [int(pid) for pid in machines]
        process.stdin.close()
        process.wait(timeout=60)


def write_matrix(directory):
    driver = directory / "parrot.py"
    driver.write_bytes((ROOT / "tests" / "drivers" / "parrot.py").read_bytes())
    command = ["{python}", "{manifest_dir}/parrot.py", "honest"]
    for name in ENGINES:
        text = f'[engine]\nname = "{name}"\n[driver]\ncommand = {json.dumps(command)}\n'
        (directory / f"{name}.toml").write_text(text)
    table = {"engines": [f"{name}.toml" for name in ENGINES], "models": MODELS, "rows": ["F-ERR-094", "F-QUAL-06"]}
    path = directory / "matrix.toml"
    path.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items()))
    return path


def matrix(file, out, address):
    words = [sys.executable, "-m", "conformance", "matrix", str(file), "--out", str(out), "-n", "1", "--ray", address]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())


def trials():
    """Processes that try a cell, by their worker."""
    found = {}
    for process in psutil.process_iter(["cmdline"]):
        if "conformance.matrix.trial" in (process.info["cmdline"] or []):
            found[process.ppid()] = process.pid
    return found


def in_the_middle(machines):
    """A worker whose trial has begun its record, with that trial and the number of its machine."""
    for worker, trial in trials().items():
        try:
            process = psutil.Process(trial)
            begun = any(file.path.endswith("record.jsonl") for file in process.open_files())
            (machine,) = [machines.index(each.pid) for each in process.parents() if each.pid in machines]
        except (psutil.Error, ValueError):
            continue
        if begun:
            return worker, trial, machine
    return None


def wait_for(condition, what, seconds=150.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain: {what}")


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["worker", "machine"])
def test_cells_of_a_dead_worker_are_tried_elsewhere(tmp_path, cluster, dies):
    process, address, machines = cluster
    out = tmp_path / "out"
    with matrix(write_matrix(tmp_path), out, address) as running:
        wait_for(lambda: len(trials()) == WORKERS, "all workers are busy")
        worker, trial, machine = wait_for(lambda: in_the_middle(machines), "a record was begun")
        if dies == "worker":
            os.kill(worker, signal.SIGKILL)
            wait_for(lambda: not psutil.pid_exists(trial), "its trial ended with it", 20)
        else:
            process.stdin.write(f"{machine}\n")
            process.stdin.flush()
            assert process.stdout.readline() == "killed\n"
        told, complaints = running.communicate(timeout=400)

    record = msgspec.json.decode((out / MATRIX_FILE).read_bytes(), type=MatrixRecord)
    assert running.returncode == record.exit_code != ExitCode.HARNESS, told + complaints
    assert len(record.cells) == len(ENGINES) * len(MODELS)
    assert not any(cell.cause for cell in record.cells)
    for number, _ in enumerate(MODELS):
        of_a_model = [cell.verdicts for cell in record.cells[number :: len(MODELS)]]
        assert of_a_model == [of_a_model[0]] * len(ENGINES)
    begun = len(list(out.glob("cells/*/2*/record.jsonl")))
    assert begun > len(record.cells), "nobody died in the middle of a cell"
    # A worker whose machine was killed beside it on this host sees that only after a while.
    wait_for(lambda: not trials(), "no trial is left", 60)


@pytest.mark.slow
def test_an_address_where_no_cluster_is_is_one_line(tmp_path):
    with matrix(write_matrix(tmp_path), tmp_path / "out", "127.0.0.1:9") as running:
        _, complaints = running.communicate(timeout=200)
    assert running.returncode == ExitCode.USAGE
    assert "--ray 127.0.0.1:9" in complaints.splitlines()[-1]
