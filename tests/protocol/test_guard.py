import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conformance.protocol import guard

ROOT = Path(__file__).parents[2]
HARNESS = """
import sys
from pathlib import Path
from conformance.protocol.client import Engine, Launch
from conformance.protocol.messages import Ping
command = [sys.executable, "-I", "-S", {driver!r}, {name!r}]
engine = Engine(Launch(command, {{}}, Path("."), Path(".")))
engine.info
print("ready", flush=True)
if {name!r} != "hang":
    engine.call("ping", Ping())
    print("detached", flush=True)
    sys.stdin.read()
engine.call("ping", Ping())
"""


def lives(process):
    """Not gone; a zombie that only waits for init is gone."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
@pytest.mark.parametrize(("name", "family"), [("hang", 2), ("detach", 3), ("stubborn", 2)])
def test_a_killed_harness_leaves_nothing(tmp_path, name, family, number):
    driver = str(ROOT / "tests" / "drivers" / "hostile.py")
    code = HARNESS.format(driver=driver, name=name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as harness:
        assert harness.stdout.readline() == b"ready\n"
        if name == "detach":
            assert harness.stdout.readline() == b"detached\n"
        time.sleep(0.1)
        children = psutil.Process(harness.pid).children(recursive=True)
        assert len(children) >= family
        harness.send_signal(number)
        harness.wait(5)
        deadline = time.monotonic() + 2
        while any(map(lives, children)) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(map(lives, children))


def test_an_order_survives_the_journey():
    command, cwd = ["a b", "", "ü", "x=y\n", "\udcff"], "/srv/ö"
    env = {"A": "1=2", "EMPTY": "", "N": "a\nb"}
    order = guard.encode_order(command, cwd, env)
    assert int.from_bytes(order[:8], "big") == len(order) - 8
    assert guard.decode_order(order[8:]) == (command, cwd, env)


def test_a_nul_cannot_be_ordered():
    with pytest.raises(ValueError, match="NUL"):
        guard.encode_order(["a\0b"], "/", {})


def test_descendants_are_found_whatever_their_names(tmp_path):
    odd = tmp_path / ") 1 (x"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen(["/bin/sh", "-c", f"'{odd}' 30 & wait"]) as shell:
        deadline = time.monotonic() + 5
        while len(guard.descendants(os.getpid())) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        found = guard.descendants(os.getpid())
        names = {psutil.Process(pid).name() for pid in found}
        for pid in found:
            os.kill(pid, signal.SIGKILL)
    assert shell.pid in found
    assert odd.name in names


@pytest.fixture
def order(tmp_path):
    """Start a bare guard on an order; gives our end of its control socket as a file, and the guard."""
    started = []

    def give(*command, cwd=tmp_path):
        ours, theirs = socket.socketpair()
        process = subprocess.Popen([sys.executable, guard.__file__, str(theirs.fileno())], pass_fds=[theirs.fileno()])
        theirs.close()
        started.append((ours, process))
        ours.sendall(guard.encode_order(list(command), str(cwd), {"PATH": os.environ["PATH"]}))
        return ours, ours.makefile("r"), process

    yield give
    for ours, process in started:
        ours.close()
        process.wait(5)


def test_the_guard_passes_on_the_pid_and_the_raw_wait_status(order):
    _, answers, process = order("sh", "-c", "exit 3")
    assert answers.readline().startswith("pid ")
    word, status, max_rss_kib = answers.readline().split()
    assert (word, os.waitstatus_to_exitcode(int(status))) == ("exit", 3)
    assert int(max_rss_kib) > 0
    assert answers.readline() == ""
    answers.close()
    assert process.wait(5) == 0


def test_the_guard_says_why_nothing_was_started(order):
    _, answers, process = order("no-such-command")
    assert answers.readline() == "failed No such file or directory: no-such-command\n"
    answers.close()
    assert process.wait(5) == 0


def test_the_guard_ends_the_whole_family_when_its_socket_closes(order):
    ours, answers, process = order("sh", "-c", "setsid sh -c 'trap \"\" TERM; sleep 60 & sleep 60' & sleep 60")
    pid = int(answers.readline().split()[1])
    deadline = time.monotonic() + 5
    while len(guard.descendants(process.pid)) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    family = [psutil.Process(member) for member in guard.descendants(process.pid)]
    assert pid in {member.pid for member in family}
    assert len(family) == 5
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)
    assert all(map(lives, family))
    ours.shutdown(socket.SHUT_WR)
    word, status, _ = answers.readline().split()
    assert (word, os.WTERMSIG(int(status))) == ("exit", signal.SIGKILL)
    answers.close()
    assert process.wait(5) == 0
    assert not any(map(lives, family))


def test_a_guard_without_an_order_ends():
    ours, theirs = socket.socketpair()
    with subprocess.Popen(
        [sys.executable, guard.__file__, str(theirs.fileno())], pass_fds=[theirs.fileno()]
    ) as process:
        theirs.close()
        ours.sendall(b"\0\0")
        ours.close()
        assert process.wait(5) == 0


def test_no_core_file_is_written(order, tmp_path):
    _, answers, _ = order("sh", "-c", "ulimit -H -c > limit")
    assert answers.readline().startswith("pid ")
    assert answers.readline().startswith("exit 0 ")
    answers.close()
    assert (tmp_path / "limit").read_text() == "0\n"
