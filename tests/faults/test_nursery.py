"""Processes from the nursery are what their callers take them for, and go with them."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from conformance.faults import nursery
from conformance.faults.nursery import NurseryDied


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    with nursery.nursery(tmp_path_factory.mktemp("nursery")) as path:
        yield path


def asked(path, *arguments, **options):
    command = [sys.executable, "-I", "-S", nursery.__file__, "ask", str(path), *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)


def forked(path):
    """What the nursery has forked and lives."""
    (serving,) = [child for child in psutil.Process().children() if child.cmdline()[-2:] == ["serve", str(path)]]
    return [child for child in serving.children() if child.status() != psutil.STATUS_ZOMBIE]


def until(holds, seconds=20.0):
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def test_streams_and_status_are_the_callers(path):
    with asked(path, "no-such-fault") as process:
        out, errors = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, b"")
    assert b"no fault 'no-such-fault'" in errors


def test_a_driver_answers_until_its_input_ends(path):
    with asked(path, "qkv-bias-dropped") as process:
        out, _ = process.communicate(b'{"jsonrpc":"2.0","id":1,"method":"nonsense"}\n', timeout=60)
    assert b'"error"' in out
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("work", "status", "written"),
    [
        ("print('x')", 0, "x"),
        ("sys.exit(7)", 7, ""),
        ("sys.exit('what is wrong')", 1, "what is wrong"),
        ("raise KeyError('x')", 1, "KeyError: 'x'"),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("os.kill(os.getpid(), signal.SIGABRT)", -signal.SIGABRT, ""),
        ("threading.Thread(target=lambda: [time.sleep(0.2), print('late')]).start()", 0, "late"),
        ("os.close(1)\n    print('x')", 120, "Bad file descriptor"),
    ],
)
def test_a_process_from_it_ends_as_the_interpreter_would(work, status, written):
    code = "import os, signal, sys, threading, time\nfrom conformance.faults.nursery import run_and_leave\n"
    code += f"def work():\n    {work}\n"
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    plain, left = (
        subprocess.run(
            [sys.executable, "-c", code + end], env=buffered, capture_output=True, text=True, check=False, timeout=60
        )
        for end in ("work()", "run_and_leave(work)")
    )
    assert left.returncode == plain.returncode == status
    assert written in left.stdout + left.stderr
    assert left.stdout == plain.stdout


def test_a_caller_that_is_killed_takes_its_process_along(path):
    with asked(path, "qkv-bias-dropped") as process:
        assert until(lambda: forked(path))
        process.kill()
    assert until(lambda: not forked(path))


def test_a_signal_ends_caller_and_process(path):
    with asked(path, "qkv-bias-dropped") as process:
        assert until(lambda: forked(path))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == -signal.SIGTERM
    assert until(lambda: not forked(path))


def test_a_nursery_that_cannot_serve_says_so(tmp_path):
    with pytest.raises(NurseryDied, match="ended with 1 before"), nursery.nursery(tmp_path / "no-such-directory"):
        pass
