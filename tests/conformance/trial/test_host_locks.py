"""The host under several trials: who times is alone, a full disk is no engine's fault, a dead holder holds nothing."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from trial_support import command, environment, write_manifest

from conformance.probes import nvml
from conformance.record import Header, RowResult, read_record
from conformance.trial.host_lock import HostBusy, leased_gpu, much_memory, timing
from conformance.trial.room import room_is_gone
from conformance.verdicts import ExitCode

HOLD = """
import sys, time
from pathlib import Path
from conformance.trial.host_lock import timing
with timing(alone=sys.argv[2] == "alone", directory=Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder(directory, kind):
    words = [sys.executable, "-c", HOLD, str(directory), kind]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize(
    ("theirs", "alone", "free"),
    [("shared", False, True), ("shared", True, False), ("alone", False, False), ("alone", True, False)],
)
def test_timed_rows_exclude_all_others_and_the_dead_hold_nothing(tmp_path, theirs, alone, free):
    with holder(tmp_path, theirs) as process:
        try:
            if free:
                with timing(alone=alone, directory=tmp_path, patience_s=0.2):
                    pass
            else:
                with (
                    pytest.raises(HostBusy, match="another trial"),
                    timing(alone=alone, directory=tmp_path, patience_s=0.2),
                ):
                    pass
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        with timing(alone=True, directory=tmp_path, patience_s=5):
            pass


def test_a_gpu_belongs_to_one_trial_and_waiting_can_be_given_up(tmp_path):
    told = []
    with leased_gpu("GPU-1", directory=tmp_path):
        with leased_gpu("GPU-2", directory=tmp_path, waiting=lambda: told.append("2")):
            pass
        with leased_gpu("GPU-1", directory=tmp_path, waiting=lambda: told.append("1"), stopped=lambda: bool(told)):
            pass
    assert told == ["1"]


def test_gigabytes_are_taken_by_one_row_at_a_time(tmp_path):
    with much_memory(directory=tmp_path), pytest.raises(HostBusy), much_memory(patience_s=0.1, directory=tmp_path):
        pass
    with much_memory(patience_s=0.1, directory=tmp_path):
        pass


def device(index):
    fields = dict.fromkeys(nvml.Gpu.__struct_fields__)
    return nvml.Gpu(**fields | {"index": index, "uuid": f"GPU-{index}abc"})


@pytest.mark.parametrize(("named", "places"), [(None, [0, 1]), ("1", [1]), ("GPU-1", [1]), ("1,0", [1, 0])])
def test_the_witness_follows_the_devices_that_the_engine_sees(monkeypatch, named, places):
    monkeypatch.setattr(nvml, "_all_gpus", lambda dev: [device(0), device(1)])
    monkeypatch.delenv(nvml.VISIBLE, raising=False)
    if named is not None:
        monkeypatch.setenv(nvml.VISIBLE, named)
    assert [each.index for each in nvml.gpus()] == places


@pytest.mark.parametrize("named", ["", "7", "GPU-x", "GPU-"])
def test_hidden_or_unknown_devices_are_an_error_never_a_rehearsal(monkeypatch, named):
    monkeypatch.setattr(nvml, "_all_gpus", lambda dev: [device(0), device(1)])
    monkeypatch.setenv(nvml.VISIBLE, named)
    with pytest.raises(nvml.DeviceUnusable):
        nvml.gpus()


def limited(nbytes):
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))


def test_no_room_is_seen_before_anything_runs(tmp_path):
    engine = write_manifest(tmp_path)
    done = subprocess.run(
        command("--engine", engine, "-k", "F-ERR-094", "--out", tmp_path / "out"),
        capture_output=True, text=True, env=environment(), timeout=60, check=False, preexec_fn=limited(1 << 20),
    )  # fmt: skip
    assert done.returncode == ExitCode.HARNESS
    assert "no room for 32 MiB: File too large" in done.stderr
    assert not list(tmp_path.glob("out/2*"))
    assert room_is_gone(tmp_path) is None


RECORD = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from shard_support import Nobody, ROWS, WHOLE, result
from conformance.trial.recorder import Recorder, RecordUnwritable
resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
with Recorder(Path(sys.argv[1]), WHOLE, Nobody()) as recorder:
    for row in ROWS:
        try:
            recorder.record(result(row, weights="w" * 100))
        except RecordUnwritable as error:
            print(error)
    try:
        recorder.finish("completed", lambda row: result(row))
    except RecordUnwritable as error:
        print(error)
"""


def test_a_record_that_meets_a_full_disk_ends_with_a_whole_line_and_settles_nothing(tmp_path):
    words = [sys.executable, "-c", RECORD, str(tmp_path), str(Path(__file__).parent)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=60, check=True)
    assert "File too large; the record is truncated" in done.stdout
    raw = (tmp_path / "record.jsonl").read_bytes()
    assert raw.endswith(b"}\n")
    record = read_record(tmp_path / "record.jsonl")
    assert record.truncated
    assert 0 < sum(row.reason != "no record" for row in record.rows) < len(record.rows)
    assert isinstance(record.header, Header)
    assert all(isinstance(row, RowResult) for row in record.rows)


@pytest.mark.slow
def test_two_trials_in_one_directory_leave_two_whole_records(tmp_path):
    engine = write_manifest(tmp_path)
    words = command("--engine", engine, "-k", "F-ERR-094", "-n", "1", "--out", tmp_path / "out")
    both = [
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()) for _ in "ab"
    ]
    codes = [process.wait(timeout=100) for process in both]
    records = [read_record(path) for path in (tmp_path / "out").glob("2*/record.jsonl")]
    assert sorted(record.footer.exit_code for record in records) == sorted(codes)
    assert len({record.header.trial_id for record in records}) == 2
