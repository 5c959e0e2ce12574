"""Processes with faults planted, forked from one that has imported the engine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from conformance.manifest import LoadedManifest
from conformance.probes.nvml import NONE, VISIBLE

ROOT = Path(__file__).parents[2]
NURSERY = Path(__file__).with_name("nursery.py")


@pytest.fixture(scope="module")
def nursery(tmp_path_factory):
    """Where processes with faults are to be had."""
    path = tmp_path_factory.mktemp("nursery") / "socket"
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false", VISIBLE: NONE,
    }  # fmt: skip
    command = [sys.executable, NURSERY, "serve", path]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        yield path
        process.stdin.close()
        assert process.wait(30) == 0


@pytest.fixture(scope="module")
def nursed(nursery):
    """Makes of a fault's manifest one with processes from the nursery."""
    begin = ["{python}", "-I", "-S", str(NURSERY), "ask", str(nursery)]

    def changed(loaded):
        manifest = loaded.manifest
        driver = msgspec.structs.replace(manifest.driver, command=[*begin, *manifest.driver.command[3:]])
        cli = msgspec.structs.replace(manifest.cli, command=[*begin, *manifest.cli.command[3:]])
        manifest = msgspec.structs.replace(manifest, driver=driver, cli=cli)
        return LoadedManifest(manifest, loaded.path, loaded.sha256)

    return changed
