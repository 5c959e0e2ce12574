"""Ctrl-C, SIGTERM, SIGHUP and SIGKILL during a trial: the record says so, and no process is left."""

import os
import signal
import subprocess

import pytest
from trial_support import (
    TIMEOUT_S,
    command,
    end_group,
    environment,
    processes_of,
    record_in,
    started,
    wait_for,
    write_manifest,
)

from conformance.verdicts import ExitCode, Verdict

SURVIVES, SLEEPS, AFTER = ROWS = "F-QUAL-067", "F-QUAL-068", "F-QUAL-069"


@pytest.fixture
def asleep(tmp_path):
    """Starts a trial whose engine falls asleep in F-QUAL-068, and waits until it does."""
    running = []
    (tmp_path / "asleep").mkdir()
    manifest = write_manifest(tmp_path, "sleeps", env={"ASLEEP": str(tmp_path / "asleep")})

    def start(workers, **options):
        selected = [word for row in ROWS for word in ("-k", row)]
        process = started("--engine", manifest, *selected, "-n", workers, "--out", tmp_path / "out", **options)
        running.append(process)
        wait_for(lambda: list((tmp_path / "asleep").iterdir()) or process.poll() is not None, "the engine to sleep")
        return process

    yield start
    for process in running:
        end_group(process)


def assert_interrupted(process, out, said):
    record = record_in(out)
    rows = {row.id: row for row in record.rows if row.id in ROWS}
    assert record.footer.ended == "interrupted", said
    assert (rows[SLEEPS].verdict, rows[SLEEPS].reason) == (Verdict.UNTESTED, "interrupted")
    assert {row.verdict for row in rows.values()} <= {Verdict.CORROBORATED, Verdict.UNTESTED}
    assert process.returncode == record.footer.exit_code == ExitCode.UNDECIDED
    assert (out / "latest" / "scorecard.html").is_file()
    assert "Traceback" not in said[1]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_one_signal_to_the_harness_alone_leaves_a_valid_record(asleep, tmp_path, number, workers):
    process = asleep(workers)

    process.send_signal(number)

    assert_interrupted(process, tmp_path / "out", process.communicate(timeout=TIMEOUT_S))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_ctrl_c_three_times_reaches_the_whole_group_and_leaves_a_valid_record(asleep, tmp_path, workers):
    process = asleep(workers)

    for _ in range(3):
        os.killpg(process.pid, signal.SIGINT)

    assert_interrupted(process, tmp_path / "out", process.communicate(timeout=TIMEOUT_S))


@pytest.mark.slow
def test_all_three_signals_one_after_the_other(asleep, tmp_path):
    process = asleep(2)

    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        process.send_signal(number)

    assert_interrupted(process, tmp_path / "out", process.communicate(timeout=TIMEOUT_S))


def test_a_trial_started_with_sigint_ignored_can_be_interrupted(asleep, tmp_path):
    process = asleep(1, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN))

    process.send_signal(signal.SIGINT)

    assert_interrupted(process, tmp_path / "out", process.communicate(timeout=TIMEOUT_S))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_sigkill_leaves_a_truncated_record_and_no_process_within_two_seconds(asleep, tmp_path, workers):
    process = asleep(workers)

    process.kill()
    process.wait()

    wait_for(lambda: not processes_of(tmp_path), "all processes to end", seconds=2.0)
    record = record_in(tmp_path / "out")
    assert record.truncated
    assert {row.reason for row in record.rows if row.verdict is Verdict.UNTESTED} == {"no record"}


def test_an_engine_that_hangs_at_its_start_can_be_interrupted(tmp_path):
    code = "import sys, time; open(sys.argv[1], 'w').close(); time.sleep(600)"
    manifest = write_manifest(tmp_path, "hangs", command=["{python}", "-c", code, str(tmp_path / "up")])
    process = started("--engine", manifest, "-k", SLEEPS, "--out", tmp_path / "out")
    try:
        wait_for((tmp_path / "up").exists, "the engine to hang")
        process.send_signal(signal.SIGTERM)

        assert_interrupted(process, tmp_path / "out", process.communicate(timeout=TIMEOUT_S))
    finally:
        end_group(process)


def test_a_signal_while_the_request_is_being_validated_ends_with_three_and_one_line(tmp_path):
    code = (
        "import os, signal, sys, conformance.trial.runner as runner, conformance.cli as cli\n"
        "runner.resolve_model = lambda spec: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['falsify', 'run', '--out', sys.argv[1]]\n"
        "cli.main()\n"
    )
    done = subprocess.run(
        [command()[0], "-c", code, str(tmp_path)], env=environment(), capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stderr) == (ExitCode.UNDECIDED, "falsify: interrupted before the first row\n")
