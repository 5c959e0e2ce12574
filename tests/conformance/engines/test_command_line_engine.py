"""Engines that have nothing but a command line: the Rust `apr`'s spelling, our own, and none at all."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.manifest import EngineNotInstalled, load_manifest, require_installed
from conformance.protocol.client import Engine
from conformance.record import read_record
from conformance.smoke import smoke
from conformance.trial.launching import launch_in
from conformance.verdicts import Rehearsed

ROOT = Path(__file__).parents[3]
FOREIGN = ROOT / "tests" / "engines" / "foreign_apr.py"
ROWS = ("F-INT-096", "F-INT-097", "F-INT-098", "F-INT-099", "F-INT-100")
PLAIN = "=== APR Run ===\n\nSource: /m/4=8.st\n\nOutput:\n2 + 2 = 4.\n\nIt is.\n\nCompleted in 1.42s (cached)\n"
CHAT = "Model Chat\nYou: Assistant: first\nsecond\n[5 tokens in 0.1s = 40.0 tok/s]\nGoodbye!\n"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """A directory in front of PATH that holds the foreign `apr`."""
    directory = tmp_path / "bin"
    directory.mkdir()
    executable = directory / "apr"
    executable.write_text(f'#!/bin/sh\nexec {sys.executable} {FOREIGN} "$@"\n')
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", f"{directory}{os.pathsep}{os.environ['PATH']}")


def rows_of(tmp_path, engine):
    command = [sys.executable, "-m", "conformance", "run", "--engine", str(engine), "--model", "fixture", "-n1"]
    command += ["--out", str(tmp_path / "out"), *(f"-k{row}" for row in ROWS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    record = tmp_path / "out" / "latest" / "record.jsonl"
    assert record.is_file(), done.stderr
    return read_record(record)


@pytest.mark.parametrize(("output", "answer"), [(PLAIN, "2 + 2 = 4.\n\nIt is."), (CHAT, "first\nsecond")])
def test_the_answer_lies_between_the_lines_of_the_rust_program(output, answer):
    table = load_manifest("apr").manifest.cli

    assert re.search(table.answer, output, re.DOTALL)["answer"] == answer


@pytest.mark.parametrize(
    ("line", "gpu", "cpu"),
    [
        ("Backend: GPU (NVIDIA H100 80GB HBM3, 81559 MB VRAM)", True, False),
        ("Backend: CPU (SIMD-accelerated)", False, True),
        ("Backend: CPU (GPU init failed: no device)", False, True),
        ("Backend: wgpu (Vulkan)", False, False),
        ("Config: quant=F16/BF16, threads=1 (GPU)", False, False),
    ],
)
def test_only_the_backend_line_names_the_processor(line, gpu, cpu):
    table = load_manifest("apr").manifest.cli

    assert (bool(re.search(table.backend_gpu, line)), bool(re.search(table.backend_cpu, line))) == (gpu, cpu)


def test_a_program_that_is_not_there_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(EngineNotInstalled, match="engine 'apr' is not installed: no program 'apr' on PATH"):
        require_installed(load_manifest("apr"))


def test_the_driver_of_a_command_line_passes_smoke_and_tells_the_version(program, tmp_path):
    launch = launch_in(load_manifest("apr"), tmp_path / "exchange")
    with Engine(launch) as engine:
        assert (engine.info.version, engine.info.capabilities) == ("apr 0.0.0 (foreign)", ["cli"])

    assert [step for step in smoke(launch) if not step.ok] == []


@pytest.mark.slow
def test_rows_of_the_rust_spelling_are_tried_on_a_foreign_program(program, tmp_path):
    record = rows_of(tmp_path, "apr")
    rows = {row.id: row for row in record.rows if row.id in ROWS}

    assert record.header.engine.version == "apr 0.0.0 (foreign)"
    assert {row.id: row.rehearsed for row in rows.values()} == dict.fromkeys(ROWS, Rehearsed.SURVIVED), rows


@pytest.mark.slow
def test_our_own_program_is_judged_as_a_foreign_one(tmp_path):
    manifest = tmp_path / "ours.toml"
    manifest.write_text(
        '[engine]\nname = "ours"\n\n[driver]\n'
        'command = ["{python}", "-m", "conformance.engines.command_line_engine", "{manifest}"]\n\n'
        '[cli]\ncommand = ["{python}", "-m", "reference_engine.cli"]\n'
    )
    record = rows_of(tmp_path, manifest)

    assert {row.rehearsed for row in record.rows if row.id in ROWS} == {Rehearsed.SURVIVED}
