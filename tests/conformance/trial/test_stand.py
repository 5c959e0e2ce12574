"""The stand keeps evidence, refuses numbers that no record can carry, and says what could not be tried."""

import hashlib
import os
import signal

import numpy as np
import pytest
from trial_support import make_plan

from conformance.catalogue import NO_DEVICE
from conformance.observations import Failed, Measured, Missing
from conformance.plugin import pytest_configure
from conformance.protocol.failures import DriverDied, DriverNotStarted, DriverStarved, EngineRefused
from conformance.record import ModelIdentity
from conformance.trial.befallen import observe_failure
from conformance.trial.plan import read_plan
from conformance.trial.recorder import TwiceRecorded
from conformance.trial.signals import STOPPING, stoppable
from conformance.trial.stand import NotTried


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = make_plan(tmp_path)

    assert read_plan(plan.write()) == plan


def test_a_rows_seed_depends_on_the_trials_seed_and_the_row_alone(tmp_path):
    plan = make_plan(tmp_path)

    assert plan.row_seed("F-MEM-029") == make_plan(tmp_path, rows=[]).row_seed("F-MEM-029")
    assert len({plan.row_seed("A"), plan.row_seed("B"), make_plan(tmp_path, seed=8).row_seed("A")}) == 3


def test_evidence_is_copied_hashed_and_never_written_over(stand, tmp_path):
    mine = stand()

    kept = [mine.attach_text("log.txt", text) for text in ("one", "two", "three")]

    assert [item.path for item in kept] == [f"evidence/F-MEM-029/log{n}.txt" for n in ("", "-2", "-3")]
    for item, text in zip(kept, ("one", "two", "three"), strict=True):
        assert (tmp_path / item.path).read_text() == text
        assert item.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert mine.evidence == kept


def test_evidence_of_an_unknown_kind_and_text_that_no_file_can_hold(stand, tmp_path):
    (tmp_path / "x.unknownkind").write_bytes(b"\0")

    assert stand().attach(tmp_path / "x.unknownkind").media_type == "application/octet-stream"
    assert stand().attach_text("odd.txt", "\ud800").nbytes == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_json_cannot_carry_is_a_failure_by_itself(stand, value):
    mine = stand()

    mine.measured("x", value, "B")
    mine.equal("y", expected=[{"a": 1.0}], observed=[{"a": (value,)}])

    assert [type(each) for each in mine.observations] == [Failed, Failed]
    assert {each.how for each in mine.observations} == {"not a number"}


def test_without_a_gpu_its_observations_are_missing_for_that_reason(stand):
    mine, on_gpu = stand(), stand(gpu=True, device_index=1)

    assert mine.needs_gpu("a", "b") is False
    assert [(each.name, each.reason) for each in mine.observations] == [("a", NO_DEVICE), ("b", NO_DEVICE)]
    assert (mine.model_device, on_gpu.model_device) == ("cpu", "cuda:1")
    assert on_gpu.needs_gpu("a") is True
    assert on_gpu.observations == []


def test_using_the_model_notes_the_weights(stand):
    mine = stand()
    assert mine.weights == ""

    assert mine.model_directory.is_dir()
    assert mine.weights == "random"
    assert mine.goldens.run.cases


def test_no_goldens_and_goldens_of_other_weights_leave_the_row_untried(stand):
    with pytest.raises(NotTried, match="no goldens for random"):
        _ = stand(goldens_dir=None).goldens
    with pytest.raises(NotTried, match="goldens"):
        _ = stand(model=ModelIdentity("random", "random", "0" * 64)).goldens


def refused():
    return EngineRefused("generate", kind="internal", message="no", code=1)


def died(tail="last words"):
    return DriverDied("generate", signal=11, exit_status=None, ended_by="driver", stderr_tail=tail, max_rss=0)


def test_what_befell_the_engine_is_one_observation_and_failures_win(stand):
    mine = stand()

    assert observe_failure(mine, NotTried("no [build] table"))
    assert observe_failure(mine, NotTried("another reason"))
    assert [(type(each), each.reason) for each in mine.observations] == [(Missing, "no [build] table")]
    assert observe_failure(mine, died())
    assert observe_failure(mine, refused())
    assert [each.how for each in mine.observations] == ["DriverDied"]
    assert [item.path for item in mine.evidence] == ["evidence/F-MEM-029/engine-stderr.txt"]


def test_a_silent_death_has_no_stderr_to_keep_and_our_own_error_is_not_the_engines(stand):
    mine = stand()

    assert observe_failure(mine, died(""))
    assert mine.evidence == []
    assert observe_failure(mine, KeyError("x")) is False


def test_the_plugin_does_nothing_outside_a_trial(pytestconfig):
    assert pytestconfig.getoption("--falsify-plan", default=None) is None
    before = pytestconfig.pluginmanager.get_plugins()
    if pytestconfig.pluginmanager.has_plugin("falsify"):
        pytest_configure(pytestconfig)
    assert pytestconfig.pluginmanager.get_plugins() == before


def test_a_signal_outside_an_attempt_is_noted_and_stops_the_next_one():
    with stoppable() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested
        assert stop.attempt(lambda: "done", "stopped") == "stopped"


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_breaks_an_attempt_off_and_later_ones_disturb_nothing(number):
    cleaned = []

    def work():
        try:
            os.kill(os.getpid(), number)
            return "done"
        finally:
            for each in STOPPING:
                os.kill(os.getpid(), each)
            cleaned.append(True)

    with stoppable() as stop:
        assert stop.attempt(work, "stopped") == "stopped"
        os.kill(os.getpid(), number)
    assert cleaned == [True]


def test_handlers_are_given_back_and_values_and_errors_pass_through():
    before = [signal.getsignal(each) for each in STOPPING]
    with stoppable() as stop:
        assert stop.attempt(lambda: "done", None) == "done"
        with pytest.raises(KeyError):
            stop.attempt(lambda: {}["x"], None)
    assert [signal.getsignal(each) for each in STOPPING] == before


def test_a_result_recorded_twice_names_its_row():
    assert str(TwiceRecorded("F-A-001")) == "F-A-001 was recorded twice"


def test_tensors_are_read_from_the_trials_work_directory(stand, tmp_path):
    from conformance.protocol.tensors import write_tensor

    mine = stand()
    exchange = tmp_path / "exchange"
    exchange.mkdir()
    data = write_tensor(exchange, "F32", [2], np.array([1, 2], "<f4").tobytes())

    assert mine.read_tensor(data).tolist() == [1.0, 2.0]
    assert len(mine.read_bytes(data)) == 8


def test_observations_of_all_kinds_are_handed_on(stand):
    mine = stand()
    mine.failed("a", "hung", "x")
    mine.measured("b", 1, "B")

    assert mine.observations == [Failed(name="a", how="hung", detail="x"), Measured(name="b", value=1.0, unit="B")]


@pytest.mark.parametrize("at_start", [False, True])
def test_an_engine_that_others_kept_from_a_processor_is_untested(stand, at_start):
    starved = DriverStarved("generate", seconds=1200.0, stderr_tail="")
    error = starved
    if at_start:
        error = DriverNotStarted(["engine"], cause=str(starved), stderr_tail="")
        error.__cause__ = starved
    mine = stand()

    assert observe_failure(mine, error)
    (befell,) = mine.observations
    assert isinstance(befell, Missing)
    assert "other processes kept the driver from a processor" in befell.reason
