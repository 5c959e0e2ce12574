"""A trial on a disk that really is full, before it or in the middle: an error by name, never a wrong record."""

import subprocess

import pytest
from trial_support import DRIVERS, falsify, record_in, write_manifest

from conformance.record import read_record
from conformance.verdicts import ExitCode, Verdict

ROWS = ("-k", "F-CUDA-013", "-k", "F-QUAL-068")
FILLING = """
import os, sys
from pathlib import Path
sys.path.insert(0, {drivers!r})
sys.argv = ["parrot.py", {way!r}]
import parrot
from conformance.protocol.host import serve

class Filling(parrot.Adapter):
    def {call}(self, params):
        ballast = os.open("ballast", os.O_WRONLY | os.O_CREAT)
        try:
            while True:
                os.write(ballast, bytes(4096))
        except OSError:
            pass
        return super().{call}(params)

serve(Filling)
"""


@pytest.fixture
def disk(tmp_path):
    """A function that mounts a tmpfs of some size; where this machine does not let us, the test is skipped."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = []

    def mount(size):
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place], capture_output=True, check=False
        )
        if done.returncode != 0:
            pytest.skip("this machine does not let us mount")
        mounted.append(place)
        return place

    yield mount
    for each in mounted:
        subprocess.run(["umount", "-l", each], check=True)


def filling(directory, way, call):
    """An engine that fills the disk with the first such call, and is the parrot in one of its ways otherwise."""
    driver = directory / "filling.py"
    driver.write_text(FILLING.format(drivers=str(DRIVERS), way=way, call=call))
    return write_manifest(directory, f"filling_{way}", command=["{python}", str(driver)])


def test_a_full_disk_is_named_before_anything_runs(tmp_path, disk):
    place = disk("28k")
    done = falsify(*ROWS, "--engine", write_manifest(tmp_path), "--out", place, "-n", 1)
    assert done.returncode == ExitCode.HARNESS
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert not list(place.glob("2*"))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["honest", "wrong_ids"])
@pytest.mark.parametrize("call", ["device_open", "model_load"])
def test_a_disk_that_fills_up_in_the_middle_falsifies_nobody(tmp_path, disk, way, call):
    place = disk("40m")
    done = falsify(*ROWS, "--engine", filling(tmp_path, way, call), "--out", place, "-n", 1)
    assert done.returncode == ExitCode.HARNESS, done.stdout + done.stderr
    for path in place.glob("2*/record.jsonl"):
        record = read_record(path) if path.stat().st_size else None
        assert record is None or record.footer is None or record.footer.exit_code == ExitCode.HARNESS
        assert record is None or Verdict.FALSIFIED not in {row.verdict for row in record.rows}


@pytest.mark.slow
def test_the_same_engine_is_judged_where_there_is_room(tmp_path):
    done = falsify(*ROWS, "--engine", write_manifest(tmp_path, "wrong_ids"), "--out", tmp_path / "out", "-n", 1)
    assert done.returncode == ExitCode.FALSIFIED
    assert "F-QUAL-068" in {row.id for row in record_in(tmp_path / "out").rows if row.violates}
