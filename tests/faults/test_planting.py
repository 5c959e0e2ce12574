"""Faults are declared completely, and their patches leave a witness."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from conformance.catalogue import load_catalogue
from conformance.faults import planting
from conformance.faults.planting import AREAS, WITNESS, FaultTwice, Plant, UnknownFault, find_fault, known_faults


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


def test_healthy_variants_are_no_faults_though_they_are_declared_alike():
    import conformance.faults.healthy

    assert "norm-by-hand" in planting._KNOWN
    assert {fault.area for fault in known_faults().values()} <= set(AREAS)
    assert "norm-by-hand" in known_faults(Path(conformance.faults.healthy.__file__))


def test_two_faults_of_one_name_are_refused_and_so_is_a_name_or_file_that_holds_none(tmp_path):
    twice = tmp_path / "twice.py"
    fault = "@fault(expects={})\ndef same(plant):\n    'Wrong.'\n"
    twice.write_text(f"from conformance.faults.planting import fault\n{fault}{fault}")
    before = known_faults()

    with pytest.raises(FaultTwice, match="'same'"):
        known_faults(twice)
    with pytest.raises(UnknownFault, match="no-such"):
        find_fault("no-such")
    with pytest.raises(UnknownFault, match="readme"):
        known_faults(tmp_path / "readme")
    assert known_faults() == before


def test_a_fault_that_cannot_be_planted_says_so_to_the_trial(tmp_path):
    outside, witness = tmp_path / "outside.py", tmp_path / "witness.txt"
    outside.write_text(
        "from conformance.faults.planting import fault\n"
        "@fault(expects={}, early=True)\n"
        "def patches_what_is_gone(plant):\n"
        "    'Wrong.'\n"
        "    plant.replace(plant, 'gone', lambda original: original)\n"
    )
    command = [sys.executable, "-m", "conformance.faults", "patches-what-is-gone", "--module", outside]

    ended = subprocess.run(
        command, env=os.environ | {WITNESS: str(witness)}, capture_output=True, timeout=60, check=False
    )

    assert ended.returncode == 1
    assert witness.read_text().startswith("broken: ")
    assert "'Plant' object has no attribute 'gone'" in witness.read_text()


def test_properties_and_class_methods_are_patched_as_what_they_are(monkeypatch):
    class Owner:
        kind = 1

        @property
        def size(self):
            return 2

        @classmethod
        def made(cls):
            return cls.kind

        @staticmethod
        def plain():
            return 3

    plant = Plant("wrong")
    for name in ("size", "made", "plain"):
        plant.replace(Owner, name, lambda original, *arguments: 10 * original(*arguments))

    assert (Owner().size, Owner.made(), Owner.plain(), Owner().plain()) == (20, 10, 30, 30)
