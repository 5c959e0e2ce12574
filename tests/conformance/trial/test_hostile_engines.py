"""A trial of an engine that dies, hangs, floods or lies ends with a valid record and the verdict on the right row."""

import json
from functools import cache

import jsonschema
import pytest
from trial_support import DRIVERS, ROOT, write_manifest

from conformance.protocol.client import Limits
from conformance.trial import launching
from conformance.verdicts import ExitCode, Rehearsed, Verdict

DEVICE, EMPTY, ONE_TOKEN = ROWS = "F-CUDA-013", "F-QUAL-068", "F-QUAL-069"


@cache
def schema():
    return json.loads((ROOT / "docs" / "schemas" / "record.json").read_text())


def rows_of(finished):
    return {row.id: row for row in finished.record.rows if row.id in ROWS}


def verdicts_of(finished):
    return [row.verdict for row in rows_of(finished).values()]


def evidence_of(finished, row_id):
    return "".join((finished.directory / item.path).read_text() for item in rows_of(finished)[row_id].evidence)


def assert_valid(finished):
    validator = jsonschema.Draft202012Validator(schema())
    for line in (finished.directory / "record.jsonl").read_text().splitlines():
        validator.validate(json.loads(line))
    assert finished.record.footer.ended == "completed"
    assert len(finished.record.rows) == 100


def test_the_parrot_survives_so_what_follows_is_due_to_the_one_thing_spoilt(trial, tmp_path, listener):
    finished = trial(write_manifest(tmp_path), *ROWS)

    assert_valid(finished)
    assert verdicts_of(finished) == [Verdict.UNTESTED, Verdict.CORROBORATED, Verdict.CORROBORATED]
    assert rows_of(finished)[DEVICE].rehearsed is Rehearsed.SURVIVED
    assert finished.record.footer.exit_code is ExitCode.OPEN
    assert finished.record.header.engine.capabilities == ["device", "model", "generate"]
    assert listener.started == listener.finished == list(ROWS)
    assert not (finished.directory / "exchange").exists()


@pytest.mark.parametrize(
    ("way", "how"),
    [
        ("segfaults", "DriverDied: the driver died of SIGSEGV during generate"),
        ("exits", "DriverDied: the driver exited with 7 during generate"),
    ],
)
def test_death_in_a_call_falsifies_that_row_and_the_next_gets_a_new_process(trial, tmp_path, way, how):
    finished = trial(write_manifest(tmp_path, way), *ROWS)

    assert_valid(finished)
    assert verdicts_of(finished) == [Verdict.UNTESTED, Verdict.FALSIFIED, Verdict.CORROBORATED]
    assert how in rows_of(finished)[EMPTY].reason
    assert "last words" in evidence_of(finished, EMPTY)
    assert finished.record.footer.exit_code is ExitCode.FALSIFIED


def test_a_flood_on_the_protocols_own_stream_falsifies_that_row(trial, tmp_path):
    finished = trial(write_manifest(tmp_path, "floods"), *ROWS)

    assert_valid(finished)
    assert verdicts_of(finished) == [Verdict.UNTESTED, Verdict.FALSIFIED, Verdict.CORROBORATED]
    assert "ProtocolViolated" in rows_of(finished)[EMPTY].reason


def test_a_hang_falsifies_that_row_within_the_time_of_a_call(trial, tmp_path, monkeypatch):
    start = launching.TrialEngine.__init__
    monkeypatch.setattr(launching.TrialEngine, "__init__", lambda self, launch: start(self, launch, Limits(call_s=1.0)))
    (tmp_path / "asleep").mkdir()

    finished = trial(write_manifest(tmp_path, "sleeps", env={"ASLEEP": str(tmp_path / "asleep")}), *ROWS)

    assert_valid(finished)
    assert verdicts_of(finished) == [Verdict.UNTESTED, Verdict.FALSIFIED, Verdict.CORROBORATED]
    assert "DriverHung: the driver hung in generate" in rows_of(finished)[EMPTY].reason
    assert "last words" in evidence_of(finished, EMPTY)


def test_a_wrong_answer_id_falsifies(trial, tmp_path):
    command = ["{python}", "-I", "-S", str(DRIVERS / "hostile.py"), "wrong_id_on_model"]

    finished = trial(write_manifest(tmp_path, "wrong_id", command=command), EMPTY)

    assert_valid(finished)
    row = rows_of(finished)[EMPTY]
    assert row.verdict is Verdict.FALSIFIED
    assert "ProtocolViolated: the driver broke the protocol in model.load" in row.reason


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("nan_logits", "logits/one_token_hello: not a number"),
        ("few_logits", "engine: lied about a tensor"),
        ("wrong_ids", "ids/one_token_hello"),
    ],
)
def test_wrong_numbers_falsify_the_row_that_reads_them(trial, tmp_path, way, reason):
    finished = trial(write_manifest(tmp_path, way), ONE_TOKEN)

    assert_valid(finished)
    row = rows_of(finished)[ONE_TOKEN]
    assert (row.verdict, row.reason[: len(reason)]) == (Verdict.FALSIFIED, reason)


def test_a_capability_that_is_claimed_and_not_there_falsifies(trial, tmp_path):
    finished = trial(write_manifest(tmp_path, "claims_what_it_lacks"), *ROWS)

    assert_valid(finished)
    assert verdicts_of(finished) == [Verdict.UNTESTED, Verdict.FALSIFIED, Verdict.FALSIFIED]
    assert "model.load was refused: not_supported" in rows_of(finished)[EMPTY].reason


def test_a_capability_that_is_not_offered_leaves_its_rows_untested(trial, tmp_path):
    finished = trial(write_manifest(tmp_path, "offers_less"), *ROWS)

    assert_valid(finished)
    assert verdicts_of(finished) == [Verdict.UNTESTED] * 3
    assert rows_of(finished)[EMPTY].reason == "capability model is not offered"
    assert finished.record.footer.exit_code is ExitCode.UNDECIDED


def test_an_engine_that_never_starts_falsifies_the_row_of_the_start_and_blocks_all_others(trial, tmp_path):
    finished = trial(write_manifest(tmp_path, "dies_on_load"), "F-BUILD-001", *ROWS)

    assert_valid(finished)
    start = finished.record.rows[0]
    assert (start.verdict, start.rehearsed) == (Verdict.UNTESTED, Rehearsed.FAILED)
    assert "DriverNotStarted" in start.reason
    assert "no licence found" in (finished.directory / start.evidence[0].path).read_text()
    assert verdicts_of(finished) == [Verdict.UNTESTED] * 3
    assert rows_of(finished)[EMPTY].reason.startswith("blocked by F-BUILD-001: the driver did not start")
    assert finished.record.footer.exit_code is ExitCode.FALSIFIED


def test_on_a_gpu_machine_the_row_of_the_start_is_falsified_itself(trial, tmp_path, monkeypatch):
    monkeypatch.setattr("conformance.trial.runner.gpus", lambda: [a_gpu()])

    finished = trial(write_manifest(tmp_path, "dies_on_load"), "F-BUILD-001", EMPTY)

    assert_valid(finished)
    assert finished.record.rows[0].verdict is Verdict.FALSIFIED
    assert finished.record.header.rehearsal is False


def test_a_rehearsal_that_is_asked_for_uses_no_device(trial, tmp_path, monkeypatch):
    monkeypatch.setattr("conformance.trial.runner.gpus", lambda: [a_gpu()])

    finished = trial(write_manifest(tmp_path), DEVICE, rehearse=True)

    assert finished.record.header.rehearsal is True
    assert rows_of(finished)[DEVICE].rehearsed is Rehearsed.SURVIVED
    assert "--rehearse" in rows_of(finished)[DEVICE].reproduce


@pytest.mark.parametrize(
    ("way", "how"),
    [
        ("loses_context", "refused: generate was refused"),
        ("loses_context_at_last", "lost its device: device.open was refused"),
    ],
)
def test_a_lost_context_is_the_finding_of_its_row_and_the_next_gets_a_new_process(
    trial, tmp_path, monkeypatch, way, how
):
    monkeypatch.setattr("conformance.trial.runner.gpus", lambda: [a_gpu()])

    healthy = rows_of(trial(write_manifest(tmp_path), EMPTY, ONE_TOKEN))
    lost = rows_of(trial(write_manifest(tmp_path, way), EMPTY, ONE_TOKEN))

    assert lost[EMPTY].verdict is Verdict.FALSIFIED
    assert how in lost[EMPTY].reason
    assert lost[ONE_TOKEN].observations == healthy[ONE_TOKEN].observations


def test_an_engine_that_never_starts_is_not_waited_for_row_after_row(trial, tmp_path):
    tries = tmp_path / "tries"
    code = "import sys; open(sys.argv[1], 'a').write('x')"
    manifest = write_manifest(tmp_path, "dies", command=["{python}", "-c", code, str(tries)])

    trial(manifest, "f_qual")

    assert len(tries.read_text()) <= 3


def test_a_program_that_is_not_there_blocks_all(trial, tmp_path):
    finished = trial(write_manifest(tmp_path, "absent", command=[str(tmp_path / "no-such-program")]), EMPTY)

    assert_valid(finished)
    assert "No such file or directory" in rows_of(finished)[EMPTY].reason
    assert finished.record.footer.exit_code is ExitCode.UNDECIDED


def a_gpu():
    from conformance.probes.nvml import Gpu

    return Gpu(0, "Test GPU", "GPU-1", "0000:01:00.0", 1 << 30, 0, "1", "13.0", None, None, None, None, None, [])


def test_a_rehearsal_of_an_engine_without_the_device_capability_is_not_open(trial, tmp_path):
    command = ["{python}", "-I", "-S", str(DRIVERS / "hostile.py"), "exit_at_once"]

    finished = trial(write_manifest(tmp_path, "file_only", command=command), DEVICE)

    assert rows_of(finished)[DEVICE].reason == "capability device is not offered"
    assert finished.record.footer.exit_code is ExitCode.UNDECIDED
