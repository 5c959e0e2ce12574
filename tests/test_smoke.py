import os
import sys
from pathlib import Path

import psutil
import pytest

from conformance import smoke as module
from conformance.protocol.client import Launch, Limits
from conformance.smoke import SmokeStep, smoke

ROOT = Path(__file__).parents[1]
DRIVERS = ROOT / "tests" / "drivers"
NAMES = [
    "starts and initialises",
    "names known capabilities",
    "names a known precision",
    "echoes ping",
    "refuses an unknown method",
    "refuses wrong parameters",
    "offers file: file.open",
    "offers device: device.list",
    "offers storage: storage.download",
    "ends with its input",
    "prints only the protocol",
    "refuses an unknown protocol",
    "ends on shutdown",
]


@pytest.fixture(autouse=True)
def short_patience(monkeypatch):
    monkeypatch.setattr(module, "LIMITS", Limits(call_s=5, close_s=0.5))
    # Pools of processes that other tests used leave Python's own tracker of resources behind.
    before = set(psutil.Process().children(recursive=True))
    yield
    assert not set(psutil.Process().children(recursive=True)) - before


def steps_of(tmp_path, *command):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    return smoke(Launch(list(command), environment, tmp_path, tmp_path, startup_timeout=3))


def sloppy(tmp_path, wrong):
    return steps_of(tmp_path, sys.executable, "-I", "-S", str(DRIVERS / "sloppy.py"), wrong)


def failed(steps):
    return [step.name for step in steps if not step.ok]


def test_an_adapter_without_fault_passes_every_step(tmp_path):
    steps = sloppy(tmp_path, "nothing")
    assert [step.name for step in steps] == NAMES
    assert failed(steps) == []
    assert {step.advice for step in steps} == {""}


def test_the_python_host_passes_every_step(tmp_path):
    steps = steps_of(tmp_path, sys.executable, str(DRIVERS / "good.py"))
    assert failed(steps) == []
    assert SmokeStep("offers file: file.open", ok=True, detail="file_not_found") in steps


@pytest.mark.parametrize(
    ("wrong", "names", "detail"),
    [
        ("unknown_capability", ["names known capabilities"], "telepathy"),
        ("no_capability", ["names known capabilities"], "none"),
        ("unknown_precision", ["names a known precision"], "fp8"),
        ("ascii_only", ["echoes ping"], "another payload"),
        ("hangs_up_on_long_lines", ["echoes ping"], "another payload"),
        ("dies_on_ping", ["echoes ping"], "ping is too much"),
        ("answers_unknown", ["refuses an unknown method"], "as if nothing were wrong"),
        ("demands_every_field", ["echoes ping"], "without a payload"),
        ("echoes_anything", ["refuses wrong parameters"], "not a Ping"),
        ("guesses_parameters", ["refuses wrong parameters"], "as if nothing were wrong"),
        (
            "lacks_file",
            ["offers file: file.open", "offers device: device.list", "offers storage: storage.download"],
            "not_supported",
        ),
        ("untyped_refusal", ["offers file: file.open"], "internal"),
        ("opens_anything", ["offers file: file.open", "offers storage: storage.download"], ""),
        ("devices_wrongly_typed", ["offers device: device.list"], "not a DeviceList"),
        ("ignores_the_end", ["ends with its input"], "still running"),
        ("ends_badly", ["ends with its input"], "exit status 1"),
        ("prints_at_the_end", ["prints only the protocol"], "goodbye"),
        ("accepts_any_protocol", ["refuses an unknown protocol"], "999.0"),
        ("ignores_shutdown", ["ends on shutdown"], "still running"),
    ],
)
def test_each_fault_fails_its_own_step_and_no_other(tmp_path, wrong, names, detail):
    steps = sloppy(tmp_path, wrong)
    assert failed(steps) == names
    first = next(step for step in steps if not step.ok)
    assert detail in first.detail
    assert all(step.advice.endswith(".") for step in steps if not step.ok)


@pytest.mark.parametrize("name", ["start_import_error", "start_exit", "start_garbage", "start_refuse", "start_hang"])
def test_a_driver_that_does_not_start_ends_the_trial_at_once(tmp_path, name):
    [step] = steps_of(tmp_path, sys.executable, "-I", "-S", str(DRIVERS / "hostile.py"), name)
    assert not step.ok
    assert step.detail
    assert step.advice


def test_the_code_for_wrong_parameters_is_enough_without_a_kind(tmp_path):
    assert failed(sloppy(tmp_path, "code_without_kind")) == []


def test_what_is_wrong_with_an_echo_is_not_called_a_print(tmp_path):
    [step] = [step for step in sloppy(tmp_path, "echoes_anything") if not step.ok]
    assert "-32602" in step.advice


def test_a_command_that_is_not_there_is_said_to_be_so(tmp_path):
    [step] = steps_of(tmp_path, "/nowhere/driver")
    assert "/nowhere/driver" in step.detail
    assert "path" in step.advice
