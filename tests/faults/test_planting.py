"""Faults are declared completely, and their patches leave a witness."""

from types import SimpleNamespace

from conformance.catalogue import load_catalogue
from conformance.faults.planting import WITNESS, Plant, known_faults


def test_every_fault_says_what_is_wrong_and_expects_rows_that_exist():
    catalogue = load_catalogue()
    rows = {row.id for row in catalogue.rows}
    for fault in known_faults().values():
        assert fault.what, fault.name
        assert fault.expects, fault.name
        assert set(fault.expects) <= rows, fault.name
        assert set(fault.blast) <= rows | {section.key for section in catalogue.sections}, fault.name


def test_a_patch_leaves_its_witness_only_when_its_code_runs(tmp_path, monkeypatch):
    witness = tmp_path / "witness.txt"
    monkeypatch.setenv(WITNESS, str(witness))
    owner = SimpleNamespace(answer=lambda: 1)
    Plant("wrong").replace(owner, "answer", lambda original: original() + 1)
    assert not witness.exists()
    assert owner.answer() == 2
    assert witness.read_text().startswith("ran wrong in ")
