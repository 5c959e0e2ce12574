"""Engines and checkpoints that differ and are right: no row may fail one, and which do is kept as it is found."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from conformance.corpus.models import resolve_model
from conformance.faults import surviving
from conformance.faults.healthy import CHECKPOINTS
from conformance.faults.matrix import alarmed
from conformance.faults.planting import known_faults
from conformance.faults.pool import _plan
from conformance.faults.trying import Tried, faulty_manifest, patient, try_rows
from conformance.probes.nvml import NONE, VISIBLE
from conformance.protocol.client import Limits
from conformance.record import RowResult
from conformance.verdicts import Rehearsed, Verdict

ROWS = ("F-DTYPE-047", "F-QUAL-069")
HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


def healthy(monkeypatch, *arguments):
    """`python -m conformance.faults.surviving`, on two rows instead of the sample; its exit status."""
    monkeypatch.setattr(surviving, "_SAMPLE", ROWS)
    monkeypatch.setattr(sys, "argv", ["surviving", *map(str, arguments), "--devices", "none"])
    with pytest.raises(SystemExit) as ended:
        surviving.main()
    return ended.value.code


def test_variants_are_tried_once_kept_and_gone_on_with(tmp_path, monkeypatch, capsys):
    first = ["--variant", "norm-by-hand", "--variant", "reordered-header-keys"]
    assert healthy(monkeypatch, tmp_path, *first) == 0
    assert healthy(monkeypatch, tmp_path, *first) == 0

    told = capsys.readouterr()
    assert sum("norm-by-hand" in line for line in told.err.splitlines()) == 1
    kept = msgspec.json.decode((tmp_path / surviving.HEALTHY_FILE).read_bytes(), type=surviving.Survivals)
    assert kept.machine == "cpu"
    assert [one.variant for one in kept.variants] == ["norm-by-hand", "reordered-header-keys"]
    for one in kept.variants:
        assert (one.tried, one.decided, one.failed, one.ran) == ([*ROWS], len(ROWS), {}, True)
        assert f"{one.variant}: 2 rows, ran True, failed {{}}" in told.out


def test_a_variant_that_a_row_fails_is_told_and_ends_with_1(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(surviving, "_MODULE", HERE / "outside_faults.py")
    monkeypatch.setattr(surviving, "CHECKPOINTS", {})
    monkeypatch.setattr(surviving, "_SAMPLE", ("F-PARSE-041",))
    monkeypatch.setattr(
        sys, "argv", ["surviving", str(tmp_path), "--devices", "none", "--variant", "coverage-unchecked"]
    )
    with pytest.raises(SystemExit) as ended:
        surviving.main()

    assert ended.value.code == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("coverage-unchecked: 1 rows, ran True, failed {'F-PARSE-041'")


def test_a_variant_whose_code_did_not_run_did_not_survive():
    row = RowResult("F-QUAL-069", Verdict.UNTESTED, rehearsed=Rehearsed.SURVIVED)
    lost = Tried([row], [], "", 1.0, lost=["F-QUAL-070"], cause="no result within 1 s")

    found = surviving._survival("norm-by-hand", "", lost, witnessed=True)

    assert not found.ran
    assert found.failed == {"F-QUAL-070": "no result within 1 s"}


def test_all_rows_are_those_that_build_nothing():
    rows = surviving.healthy_rows(full=True)

    assert set(surviving.healthy_rows(full=False)) <= set(rows)
    assert "F-ERR-095" not in rows
    assert not [row for row in rows if row.startswith("F-BUILD")]


@pytest.fixture(scope="module")
def logits():
    """The logits of a few tokens by the checkpoint in a directory."""
    from reference_engine.device import Device
    from reference_engine.model import SafeTensorsCudaModel

    return lambda path: SafeTensorsCudaModel.from_safetensors(path, Device(0, "cpu")).logits([5, 400, 33], 1)


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_a_checkpoint_that_differs_gives_the_same_answer(name, logits, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shipped = resolve_model(None).directory

    made = CHECKPOINTS[name](shipped, tmp_path / "checkpoint")

    expected = logits(shipped)
    assert made != shipped
    assert logits(made)[:, : expected.shape[1]].equal(expected)


@pytest.mark.parametrize("variant", known_faults(surviving._MODULE).values(), ids=lambda variant: variant.name)
def test_no_row_fails_an_engine_that_computes_or_answers_in_another_way(variant, nursed, tmp_path, monkeypatch):
    monkeypatch.setenv(VISIBLE, NONE)
    plan = _plan(tmp_path, resolve_model(None), [*ROWS, "F-CUDA-012"])
    manifest, witness = faulty_manifest(variant, surviving._MODULE, tmp_path)

    results = list(try_rows(nursed(manifest), plan, plan.rows, patient(Limits())))

    assert [result.id for result in results if alarmed(result)] == []
    assert f"ran {variant.name} " in witness.read_text()


def test_every_variant_has_a_name_of_its_own():
    names = surviving.all_variants()

    assert len(names) == len(set(names))
    assert set(known_faults(surviving._MODULE)) | set(CHECKPOINTS) == set(names)
