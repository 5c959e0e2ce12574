"""Commands of the engine run under the guard: their streams, how they end, and nothing left of them."""

import sys

import psutil
import pytest
from control_stands import stand_of

from checks.support.command_line import run_command
from conformance.manifest import load_manifest


@pytest.fixture
def ran(tmp_path):
    with stand_of(tmp_path, "Healthy", "F-INT-097") as stand:
        stand.manifest = load_manifest("reference")
        yield lambda *command, **options: run_command(stand, command, **options)


def test_streams_and_status_come_back(ran):
    output = ran("/bin/sh", "-c", "cat; echo wrong >&2; exit 3", stdin=b"x" * 300_000)

    assert (output.status, output.stdout, output.first_error) == (3, "x" * 300_000, "wrong")


def test_a_command_that_reads_nothing_and_one_that_is_killed(ran):
    assert ran("/bin/sh", "-c", "exit 0", stdin=b"x" * 300_000).status == 0
    assert ran("/bin/sh", "-c", "kill -SEGV $$").status == -11


def test_a_command_that_hangs_is_ended_with_all_it_started(ran):
    output = ran("/bin/sh", "-c", "setsid sleep 987 & echo started; exec sleep 987", timeout=1.0)

    assert (output.status, output.stdout) == (None, "started\n")
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "987"]]


def test_endless_output_is_bounded(ran):
    output = ran(sys.executable, "-c", "while True: print('y' * 1000)", timeout=2.0)

    assert output.status is None
    assert len(output.stdout) < 6 * 1024 * 1024
