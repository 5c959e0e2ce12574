"""Every fault that a CPU shows, planted by the machinery of the matrix, against the rows that it names."""

from __future__ import annotations

import pytest

from conformance.catalogue import load_catalogue
from conformance.corpus.models import resolve_model
from conformance.faults.nursery import can_be_nursed
from conformance.faults.planting import known_faults
from conformance.faults.pool import _plan
from conformance.faults.specificity import judge_fault
from conformance.faults.trying import Tried, faulty_manifest, patient, try_rows
from conformance.probes.nvml import NONE, VISIBLE
from conformance.protocol.client import Limits
from conformance.record import RowResult
from conformance.verdicts import Rehearsed, Verdict

FAULTS = [fault for fault in known_faults().values() if fault.machine == "cpu"]
UNSEEN = {
    "unsupported-dtype-names-no-tensor": "the fields of the refusal still name both",
    "newest-position-lost-at-a-bucket": "one weight in hundreds at one step, where no choice changes",
    "last-of-equals-chosen": "no two golden logits are equal, and a near-tie may fall either way",
    "seed-ignored": "no criterion speaks of sampling",
    "blanks-around-a-raw-prompt-lost": "no criterion speaks of blanks around a prompt without a template",
    "files-of-a-checkpoint-stay-open": "no criterion speaks of open files",
}
"""So says docs/results/severity.json, too, of those that it knows; a row that learns to see one takes it off."""
HANG_S = 5.0


def told_by(fault, row, manifest, plan, witness):
    """Why the fault was not seen for what it is by this row; empty if it was."""
    limits = patient(Limits(call_s=HANG_S if fault.crash else fault.call_s))
    results = list(try_rows(manifest, plan, [row], limits))
    tried = Tried(results, [], witness.read_text() if witness.exists() else "", 0.0)
    healthy = RowResult(row, Verdict.UNTESTED, rehearsed=Rehearsed.SURVIVED)
    return judge_fault(fault, tried, {row: healthy}, load_catalogue()).reasons


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_row_that_a_fault_names_sees_it(fault, nursed, tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, NONE)
    plan = _plan(tmp_path, resolve_model(None), list(fault.expects))
    manifest, witness = faulty_manifest(fault, None, tmp_path)
    if can_be_nursed(fault):
        manifest = nursed(manifest)
    reasons = []
    for row in fault.expects:
        reasons = told_by(fault, row, manifest, plan, witness)
        if not reasons:
            break
    if fault.name in UNSEEN:
        assert [reason.partition(":")[0] for reason in reasons] == ["unseen"]
    else:
        assert reasons == []
