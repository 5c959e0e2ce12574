"""Every fault that a CPU shows, planted by the machinery of the matrix, against the rows that it names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from conformance.catalogue import load_catalogue
from conformance.corpus.models import resolve_model
from conformance.faults.planting import known_faults
from conformance.faults.pool import _plan
from conformance.faults.specificity import judge_fault
from conformance.faults.trying import Tried, faulty_manifest, patient, try_rows
from conformance.manifest import LoadedManifest
from conformance.probes.nvml import NONE, VISIBLE
from conformance.protocol.client import Limits
from conformance.record import RowResult
from conformance.verdicts import Rehearsed, Verdict

ROOT = Path(__file__).parents[2]
NURSERY = Path(__file__).with_name("nursery.py")
FAULTS = [fault for fault in known_faults().values() if fault.machine == "cpu"]
UNSEEN = {"booleans-are-numbers", "unsupported-dtype-names-no-tensor"}
"""Docs/results/severity.json says so, too; a row that learns to see one takes it off."""
ROWS_THAT_MEASURE_THE_PROCESS = {"memory"}
"""Areas whose rows look at what their process holds, which one from the nursery shares with its parent."""
HANG_S = 5.0


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


def nursed(loaded, path):
    """The manifest, with processes from the nursery."""
    begin = ["{python}", "-I", "-S", str(NURSERY), "ask", str(path)]
    manifest = loaded.manifest
    changed = msgspec.structs.replace(
        manifest,
        driver=msgspec.structs.replace(manifest.driver, command=[*begin, *manifest.driver.command[3:]]),
        cli=msgspec.structs.replace(manifest.cli, command=[*begin, *manifest.cli.command[3:]]),
    )
    return LoadedManifest(changed, loaded.path, loaded.sha256)


def told_by(fault, row, manifest, plan, witness):
    """Why the fault was not seen for what it is by this row; empty if it was."""
    limits = patient(Limits(call_s=HANG_S if fault.crash else fault.call_s))
    results = list(try_rows(manifest, plan, [row], limits))
    tried = Tried(results, [], witness.read_text() if witness.exists() else "", 0.0)
    healthy = RowResult(row, Verdict.UNTESTED, rehearsed=Rehearsed.SURVIVED)
    return judge_fault(fault, tried, {row: healthy}, load_catalogue()).reasons


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_row_that_a_fault_names_sees_it(fault, nursery, tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, NONE)
    plan = _plan(tmp_path, resolve_model(None), list(fault.expects))
    manifest, witness = faulty_manifest(fault, None, tmp_path)
    if fault.edit is None and fault.area not in ROWS_THAT_MEASURE_THE_PROCESS:
        manifest = nursed(manifest, nursery)
    reasons = []
    for row in fault.expects:
        reasons = told_by(fault, row, manifest, plan, witness)
        if not reasons:
            break
    if fault.name in UNSEEN:
        assert [reason.partition(":")[0] for reason in reasons] == ["unseen"]
    else:
        assert reasons == []
