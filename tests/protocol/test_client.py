import os
import signal
import threading
import time

import psutil
import pytest

from conformance.protocol import messages as m
from conformance.protocol.client import Driver, Engine, Launch, Limits
from conformance.protocol.failures import (
    CapabilityNotOffered,
    DriverDied,
    DriverHung,
    DriverNotStarted,
    DriverOutgrew,
    EngineRefused,
    ProtocolViolated,
)

PING = m.Ping("hello")


def exists(pid):
    """Not gone; a zombie that only waits for init is gone."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def failure_of(launch, kind, *, limits=None, timeout=5.0, ping=PING):
    with Engine(launch, limits) as engine:
        pid = engine.pid
        with pytest.raises(kind) as caught:
            engine.call("ping", ping, timeout=timeout)
        assert not engine.alive
        assert not exists(pid)
    assert "\n" not in str(caught.value)
    assert caught.value.method == "ping"
    return caught.value


# --- starting ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "cause", "exit_status", "evidence"),
    [
        ("start_import_error", DriverDied, 1, "ModuleNotFoundError: No module named 'no_such_module'"),
        ("start_exit", DriverDied, 3, "last words"),
    ],
)
def test_a_driver_that_dies_on_load_is_not_started_and_says_why(hostile, name, cause, exit_status, evidence):
    with pytest.raises(DriverNotStarted) as caught:
        Engine(hostile(name)).call("ping", PING)
    assert evidence in caught.value.stderr_tail
    assert f"exited with {exit_status}" in caught.value.cause
    assert isinstance(caught.value.__cause__, cause)
    assert caught.value.__cause__.exit_status == exit_status
    assert caught.value.__cause__.signal is None
    assert caught.value.__cause__.method == "initialize"


@pytest.mark.parametrize(
    ("name", "cause", "text"),
    [
        ("start_hang", DriverHung, "no answer came within 0.5 s"),
        ("start_unknown_capability", ProtocolViolated, "telepathy"),
        ("start_garbage", ProtocolViolated, "ggml_init: found 1 device"),
        ("start_refuse", EngineRefused, "no licence"),
    ],
)
def test_a_driver_that_does_not_initialise_is_not_started(hostile, name, cause, text):
    with pytest.raises(DriverNotStarted) as caught:
        Engine(hostile(name, startup_timeout=0.5)).call("ping", PING)
    assert isinstance(caught.value.__cause__, cause)
    assert text in caught.value.cause


@pytest.mark.parametrize("command", [["/nowhere/driver"], [], ["/etc/passwd"], ["no-such-command"], ["a\0b"]])
def test_a_command_that_cannot_be_run_is_not_started(tmp_path, command):
    with pytest.raises(DriverNotStarted) as caught:
        Engine(Launch(command, {"PATH": os.environ["PATH"]}, tmp_path, tmp_path)).call("ping", PING)
    assert caught.value.command == command
    assert caught.value.cause


def test_a_directory_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DriverNotStarted, match=r"No such file or directory: .*/absent"):
        Driver.spawn(["/bin/true"], cwd=tmp_path / "absent", env={}, run_dir=tmp_path)


def test_a_driver_gets_its_environment_and_directory_and_nothing_else(tmp_path):
    command = ["/bin/sh", "-c", "pwd >&2; env >&2"]
    with Driver.spawn(command, cwd=tmp_path, env={"A": "1=2\n3"}, run_dir=tmp_path) as driver:
        driver.close()
    lines = driver.stderr_tail().splitlines()
    assert lines[0] == str(tmp_path)
    assert {"A=1=2", "3", f"TMPDIR={tmp_path}"} <= set(lines)
    assert not any(line.startswith(("HOME=", "PYTHONPATH=")) for line in lines)


# --- dying ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "number", "evidence"),
    [
        ("segfault", signal.SIGSEGV, "last words"),
        ("abort", signal.SIGABRT, "terminate called"),
        ("bus", signal.SIGBUS, "last words"),
        ("kill_itself", signal.SIGKILL, ""),
    ],
)
def test_death_by_signal_is_told_apart(hostile, name, number, evidence):
    died = failure_of(hostile(name), DriverDied)
    assert died.signal == number
    assert died.exit_status is None
    assert died.ended_by == "driver"
    assert evidence in died.stderr_tail
    assert died.max_rss > 2**20
    assert signal.Signals(number).name in str(died)


@pytest.mark.parametrize(("name", "status"), [("exit_at_once", 7), ("half_an_answer", 9), ("detach_and_die", 4)])
def test_death_by_exit_has_its_status(hostile, name, status):
    died = failure_of(hostile(name), DriverDied)
    assert (died.signal, died.exit_status, died.ended_by) == (None, status, "driver")


def test_death_between_two_calls_is_found_at_the_next(hostile):
    with Engine(hostile("exit_between")) as engine:
        assert engine.info.name == "hostile"
        time.sleep(0.2)
        with pytest.raises(DriverDied) as caught:
            engine.call("ping", PING)
    assert caught.value.exit_status == 5


# --- hanging and flooding ------------------------------------------------------------------------------


def test_a_hang_ends_with_the_time_allowed(hostile):
    start = time.monotonic()
    hung = failure_of(hostile("hang"), DriverHung, timeout=0.5)
    assert time.monotonic() - start < 2
    assert hung.seconds == 0.5
    assert hung.unread == 0
    assert "thinking" in hung.stderr_tail


def test_a_driver_that_does_not_read_cannot_block_us(hostile):
    hung = failure_of(hostile("deaf"), DriverHung, timeout=0.5, ping=m.Ping("x" * 4_000_000))
    assert 3_000_000 < hung.unread < 4_000_100
    assert "never read" in str(hung)


def test_a_flood_on_standard_error_is_drained_and_bounded(hostile):
    hung = failure_of(hostile("flood_stderr"), DriverHung, timeout=0.5, limits=Limits(stderr_bytes=1000))
    assert hung.stderr_tail.count("warning") in {124, 125}


def test_an_answer_after_four_megabytes_of_standard_error_arrives(hostile):
    with Engine(hostile("flood_stderr_and_answer")) as engine:
        assert engine.call("ping", PING).payload == "after the flood"
        assert engine.stderr_tail().endswith("last words\n")
        assert "first words" not in engine.stderr_tail()


def test_growing_memory_meets_its_limit(hostile):
    for name in ("grow", "grow_in_child"):
        outgrew = failure_of(hostile(name), DriverOutgrew, limits=Limits(max_rss=150 << 20), timeout=20)
        assert 150 << 20 < outgrew.rss < 1 << 30
        assert outgrew.limit == 150 << 20


# --- talking nonsense ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        ("flood_lines", "not a response: JSON is malformed"),
        ("flood_one_line", "a line of more than 8388608 bytes"),
        ("wrong_id", "answer to request 3, not 2"),
        ("both_result_and_error", "not exactly one of result and error"),
        ("neither_result_nor_error", "not exactly one of result and error"),
        ("wrong_type", "not a Ping: Expected `str`, got `int` - at `$.payload`"),
        ("null_result", "not a Ping: Expected `object`, got `null`"),
        ("not_a_number", "not a response"),
        ("not_utf8", "not a Ping: 'utf-8' codec can't decode"),
        ("unknown_kind", "Invalid enum value 'bad_hair_day'"),
        ("nested_result", "nested too deep"),
        ("nested_field", "nested too deep"),
        ("close_stdout", "closed its standard output and went on running"),
    ],
)
def test_whatever_is_not_an_answer_is_a_violation(hostile, name, detail):
    violated = failure_of(hostile(name), ProtocolViolated)
    assert detail in violated.detail
    assert len(str(violated)) < 500


def test_a_request_that_nobody_can_read_is_a_violation(hostile):
    with Engine(hostile("close_stdin")) as engine:
        assert engine.info
        time.sleep(0.3)
        with pytest.raises(ProtocolViolated, match="closed its standard input and went on running"):
            engine.call("ping", PING, timeout=10)


def test_asking_whether_a_flooding_driver_lives_does_not_fill_our_memory(hostile):
    with Engine(hostile("flood_after_answer")) as engine:
        engine.call("ping", PING)
        read = engine._driver._process.stdout
        deadline = time.monotonic() + 5
        while len(read) <= m.MAX_LINE_BYTES and time.monotonic() < deadline:
            assert engine.alive
        for _ in range(50):
            assert engine.alive
        assert m.MAX_LINE_BYTES < len(read) < m.MAX_LINE_BYTES + (1 << 20)
        with pytest.raises(ProtocolViolated, match="unasked-for output: 'garbage"):
            engine.call("ping", PING)


def test_a_second_answer_is_never_taken_for_the_next(hostile):
    with Engine(hostile("answer_twice")) as engine:
        assert engine.call("ping", PING).payload == "once"
        with pytest.raises(ProtocolViolated, match=r"unasked-for output|answer to request 2, not 3"):
            engine.call("ping", PING)


# --- ending --------------------------------------------------------------------------------------------


def test_closing_lets_the_driver_end_by_itself(good):
    with Engine(good) as engine:
        engine.call("ping", PING)
        ended = engine.close()
    assert (ended.ended.exit_status, ended.ended.signal, ended.ended_by) == (0, None, "driver")
    assert ended.unsolicited == b""
    assert ended.seconds < 4


def test_what_ignores_the_end_of_its_input_and_sigterm_is_killed(hostile):
    with Engine(hostile("stubborn"), Limits(close_s=0.3)) as engine:
        engine.call("ping", PING)
        ended = engine.close()
    assert (ended.ended.signal, ended.ended_by) == (signal.SIGKILL, "harness")
    assert 0.3 <= ended.seconds < 2


def test_output_at_the_end_is_kept_as_evidence(hostile):
    with Engine(hostile("chatty_at_the_end")) as engine:
        engine.call("ping", PING)
        assert engine.close().unsolicited == b"goodbye\n"


@pytest.mark.parametrize("name", ["detach", "bomb"])
def test_grandchildren_in_their_own_sessions_go_with_the_driver(hostile, name):
    for end in (Engine.close, Engine.kill):
        with Engine(hostile(name), Limits(close_s=2)) as engine:
            engine.call("ping", PING)
            family = psutil.Process().children(recursive=True)
            assert len(family) >= 3
            end(engine)
        assert not [process for process in family if process.is_running()]


def test_a_driver_that_kills_its_guard_is_swept_up(hostile):
    died = failure_of(hostile("kill_guard"), DriverDied)
    assert died.signal is None
    assert died.exit_status is None
    assert "took the evidence with it" in str(died)


def test_a_driver_that_stops_its_guard_cannot_keep_us_waiting(hostile):
    start = time.monotonic()
    failure_of(hostile("stop_guard"), DriverHung, timeout=0.5)
    assert time.monotonic() - start < 5


def test_interruption_during_a_call_leaves_no_process(hostile):
    others = set(psutil.Process().children(recursive=True))
    with Engine(hostile("hang")) as engine:
        pid = engine.pid
        # Another test of this process may have left SIGINT ignored.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        timer = threading.Timer(0.3, lambda: signal.pthread_kill(threading.main_thread().ident, signal.SIGINT))
        timer.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                engine.call("ping", PING)
        finally:
            timer.join()
            signal.signal(signal.SIGINT, before)
        assert not exists(pid)
        assert not set(psutil.Process().children(recursive=True)) - others


def test_calling_a_closed_driver_names_the_harness(good, tmp_path):
    driver = Driver.spawn(good.command, cwd=tmp_path, env=good.env, run_dir=tmp_path)
    assert driver.alive
    driver.kill()
    driver.kill()
    assert not driver.alive
    with pytest.raises(DriverDied) as caught:
        driver.call("ping", PING)
    assert caught.value.ended_by == "harness"
    assert caught.value.signal == signal.SIGKILL


# --- the session ---------------------------------------------------------------------------------------


def test_after_a_failure_the_next_call_gets_a_new_process(hostile):
    with Engine(hostile("segfault")) as engine:
        pids = set()
        for restarts in range(3):
            pids.add(engine.pid)
            assert engine.restarts == restarts
            with pytest.raises(DriverDied):
                engine.call("ping", PING)
    assert len(pids) == 3


def test_a_refusal_keeps_the_process_and_carries_the_engines_words(good):
    with Engine(good) as engine:
        pid = engine.pid
        with pytest.raises(EngineRefused) as caught:
            engine.call("file.open", m.FileOpen("/absent"))
        assert engine.pid == pid
    refused = caught.value
    assert refused.kind is m.ErrorKind.FILE_NOT_FOUND
    assert refused.type == "FileNotFoundError"
    assert refused.fields == {"path": "/absent"}
    assert refused.code == -32000
    assert "No such file" in refused.message


def test_a_capability_that_is_not_offered_is_not_asked_for(good):
    with Engine(good) as engine:
        with pytest.raises(CapabilityNotOffered) as caught:
            engine.call("device.list")
        assert caught.value.capability is m.Capability.DEVICE
        assert engine.alive


def test_a_claimed_capability_that_is_lacking_is_refused_with_method_not_found(good):
    with Engine(good) as engine, pytest.raises(EngineRefused) as caught:
        engine.call("file.read", m.FileRead(1, "x"))
    assert caught.value.code == -32601
    assert caught.value.kind is m.ErrorKind.NOT_SUPPORTED


def test_a_fresh_engine_is_another_process_and_leaves_the_session_alone(good):
    with Engine(good) as engine:
        pid = engine.pid
        with engine.fresh() as other:
            assert other.pid != pid
            other_pid = other.pid
        assert not exists(other_pid)
        assert engine.pid == pid
        assert engine.restarts == 0


def test_our_own_mistakes_do_not_end_the_session(good):
    with Engine(good) as engine:
        pid = engine.pid
        with pytest.raises(TypeError, match="takes Ping, not Empty"):
            engine.call("ping")
        with pytest.raises(ValueError, match="longer than a line"):
            engine.call("ping", m.Ping("x" * m.MAX_LINE_BYTES))
        assert engine.call("ping", m.Ping("x" * 7_000_000)).payload == "x" * 7_000_000
        assert engine.pid == pid


@pytest.mark.slow
def test_two_thousand_requests_a_second_pass_the_guard(good, record_property):
    with Engine(good) as engine:
        engine.call("ping", PING)
        start = time.perf_counter()
        for _ in range(10_000):
            engine.call("ping", PING)
        rate = 10_000 / (time.perf_counter() - start)
    record_property("requests_per_second", round(rate))
    assert rate >= 2000
