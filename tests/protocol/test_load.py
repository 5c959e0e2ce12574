"""A busy host is not the engine's fault: what counts is the time that an engine could have answered in."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conformance.protocol import messages as m
from conformance.protocol.client import Engine
from conformance.protocol.failures import DriverHung, DriverStarved

pytestmark = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel keeps no such times")

PING = m.Ping("hello")
SPIN = "import os\nos.write(1, b'.')\nwhile True: pass"


@pytest.fixture
def crowded():
    """Put a process on one processor together with two that never rest."""
    started = []

    def crowd(pid):
        processor = {min(os.sched_getaffinity(0))}
        os.sched_setaffinity(pid, processor)
        for _ in range(2):
            started.append(subprocess.Popen([sys.executable, "-I", "-S", "-c", SPIN], stdout=subprocess.PIPE))
            os.sched_setaffinity(started[-1].pid, processor)
            started[-1].stdout.read(1)

    yield crowd
    for process in started:
        process.kill()
        process.communicate()


def come_last(pid):
    """Let a process have a processor only where nobody else wants it, also where sessions are scheduled as groups."""
    os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
    group = Path(f"/proc/{pid}/autogroup")
    if group.exists():
        group.write_text("19")


def test_an_engine_that_others_keep_from_a_processor_has_not_hung(hostile, crowded):
    with Engine(hostile("compute")) as engine:
        crowded(engine.pid)
        began = time.monotonic()
        assert engine.call("ping", PING, timeout=0.4).payload == "computed"
        assert time.monotonic() - began > 0.4


def test_an_engine_that_computes_for_ever_hangs_on_a_busy_host_too(hostile, crowded):
    with Engine(hostile("spin")) as engine:
        crowded(engine.pid)
        with pytest.raises(DriverHung, match=r"no answer came within 0\.4 s"):
            engine.call("ping", PING, timeout=0.4)


def test_an_engine_that_sleeps_on_a_busy_host_hangs_after_the_time_allowed(hostile, crowded):
    with Engine(hostile("hang")) as engine:
        crowded(engine.pid)
        began = time.monotonic()
        with pytest.raises(DriverHung):
            engine.call("ping", PING, timeout=0.8)
        assert time.monotonic() - began < 5


def test_an_engine_that_never_got_a_processor_is_told_apart(hostile, crowded):
    with Engine(hostile("spin")) as engine:
        crowded(engine.pid)
        come_last(engine.pid)
        with pytest.raises(DriverStarved) as caught:
            engine.call("ping", PING, timeout=0.2)
        assert not engine.alive
    assert caught.value.seconds == pytest.approx(4.0, abs=1)
    assert "other processes kept the driver from a processor" in str(caught.value)
