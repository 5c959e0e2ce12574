"""Commands of the engine run under the guard: their streams, how they end, and nothing left of them."""

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from control_stands import stand_of

from checks.support.command_line import Output, Step, enough_for, on_terminal, run_command
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


def test_a_terminal_s_interrupt_reaches_the_program_also_where_the_harness_blocks_it(tmp_path):
    blocking = (
        "import signal, subprocess, sys; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]); "
        "sys.exit(subprocess.call(sys.argv[1:]))"
    )
    inner = f"""
from pathlib import Path
from control_stands import stand_of
from checks.support.command_line import Step, on_terminal
from conformance.manifest import load_manifest
with stand_of(Path({str(tmp_path / "inner")!r}), "Healthy", "F-INT-096") as stand:
    stand.manifest = load_manifest("reference")
    asks = ["/bin/sh", "-c", "echo ready; exec sleep 986"]
    print(on_terminal(stand, asks, [Step("ready", bytes([3]))], timeout=20.0).status)
"""
    (tmp_path / "inner").mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", blocking, sys.executable, "-c", inner],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.stdout.split() == ["-2"], done.stderr


@pytest.mark.parametrize(
    "program", ["trap '' INT; echo ready; exec sleep 985", "echo ready; exec >&- 2>&- <&-; sleep 985"]
)
def test_a_program_that_stays_on_after_its_terminal_spoke_is_ended(tmp_path, program):
    (tmp_path / "two").mkdir()
    with stand_of(tmp_path / "two", "Healthy", "F-INT-096") as stand:
        stand.manifest = load_manifest("reference")
        began = time.monotonic()
        output = on_terminal(
            stand, ["/bin/sh", "-c", program], [Step("ready", b"\x03")] if "trap" in program else [], timeout=1.5
        )

    assert (output.status, output.stdout.split()) in [(None, ["ready"]), (None, ["ready", "^C"])]
    assert time.monotonic() - began < 20
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "985"]]


def test_a_terminal_is_given_four_times_what_pipes_took_and_never_more_than_any_command():
    through_pipes = [Output(0, "", "", seconds) for seconds in (0.0, 0.5, 3.0, 11.0, 60.0)]

    assert [enough_for(piped) for piped in through_pipes] == [10.0, 12.0, 22.0, 54.0, 120.0]
    assert enough_for(Output(None, "", "", 120.0)) == enough_for(Output(1, "", "", 0.1)) == 120.0
