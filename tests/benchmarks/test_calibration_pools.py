"""Collectors do not share cores, and are called as the command line understands."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from conformance.cli import app

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def test_no_two_collectors_share_a_core():
    from calibration_pools import cores_of

    cores = [cores_of(number, 8) for number in range(1, 11)]

    assert set.union(*cores) == set(range(8, 28))
    assert sum(map(len, cores)) == 20


def test_a_collectors_command_is_understood(tmp_path):
    from calibration_pools import command

    options = argparse.Namespace(out=tmp_path, processes=6, seconds=330.0)
    words = command(3, options)[3:]
    values = typer.main.get_command(app).commands[words[0]].make_context(words[0], words[1:]).params

    assert values["pool"] == [tmp_path / "cpu-pool-3.jsonl"]
    assert (values["processes"], values["replays"], values["seed"], values["seconds"]) == (6, 0, 3, 330.0)


@pytest.mark.slow
def test_collectors_whose_time_is_up_leave_pools_with_their_sessions(tmp_path):
    script = [sys.executable, str(BENCHMARKS / "calibration_pools.py"), str(tmp_path)]
    options = ["--collectors", "1", "--first-core", str(min(os.sched_getaffinity(0))), "--seconds", "0"]
    env = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)}

    done = subprocess.run([*script, *options], capture_output=True, text=True, env=env, timeout=300, check=False)

    assert done.returncode == 3, done.stderr
    assert b'"gpu":false' in (tmp_path / "cpu-pool-1.jsonl").read_bytes()
