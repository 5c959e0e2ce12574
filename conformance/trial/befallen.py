"""What befell the engine during a row, as observations; and the row's result from all observations."""

from __future__ import annotations

import traceback

from conformance.judge import ENGINE, Situation, judge
from conformance.observations import Failed, Missing
from conformance.protocol.failures import (
    CapabilityNotOffered,
    DriverFailure,
    DriverNotStarted,
    DriverStarved,
    EngineRefused,
)
from conformance.protocol.messages import Capability, DeviceOpen, Handle
from conformance.protocol.tensors import BrokenTensor
from conformance.record import RowResult
from conformance.trial.room import room_is_gone
from conformance.trial.stand import AnswerFellShort, NotTried, Stand
from conformance.verdicts import Verdict

STARTS = "F-BUILD-001"
_TRACE_CHARACTERS = 6000


def observe_failure(stand: Stand, error: Exception) -> bool:
    """Turn an exception into an observation with its evidence; False if it is the harness's own fault."""
    match error:
        case NotTried():
            _observe(stand, Missing(name=ENGINE, reason=error.reason))
        case CapabilityNotOffered():
            _observe(stand, Missing(name=ENGINE, reason=f"capability {error.capability!s} is not offered"))
        case DriverStarved() | DriverNotStarted(__cause__=DriverStarved()):
            _observe(stand, Missing(name=ENGINE, reason=str(error)))
        case DriverNotStarted() if stand.row.id != STARTS:
            _observe(stand, Missing(name=ENGINE, reason=f"blocked by {STARTS}: {error}"))
        case EngineRefused():
            _observe(stand, Failed(name=ENGINE, how="refused", detail=str(error)))
        case DriverFailure():
            _observe_broken_driver(stand, error, str(error))
        case AnswerFellShort():
            _observe(stand, Failed(name=ENGINE, how="answered with less", detail=str(error)))
        case BrokenTensor():
            _observe(stand, Failed(name=ENGINE, how="lied about a tensor", detail=str(error)))
        case _:
            return False
    return True


def observe_start(stand: Stand) -> None:
    """The row of the start: an engine that does not start is found there, whatever else its check could try."""
    if stand.row.id == STARTS:
        try:
            stand.engine.info  # noqa: B018  asking starts it
        except DriverNotStarted as error:
            observe_failure(stand, error)


def observe_survival(stand: Stand) -> None:
    """An engine that died after its last answer, or whose device no longer answers, came to it in this row."""
    death = stand.engine.died_since_last_call()
    if death is not None:
        _observe_broken_driver(stand, death, f"between rows: {death}")
    elif stand.plan.gpu and stand.engine.alive and Capability.DEVICE in stand.engine.info.capabilities:
        _observe_device(stand)


def _observe_device(stand: Stand) -> None:
    """A lost CUDA context fails every later call of its process: the next row gets a new one."""
    engine = stand.engine
    try:
        device = engine.call("device.open", DeviceOpen(stand.plan.device_index)).handle
        engine.call("device.synchronize", Handle(device))
        engine.call("device.close", Handle(device))
    except EngineRefused as refusal:
        engine.kill()
        _observe(stand, Failed(name=ENGINE, how="lost its device", detail=str(refusal)))
    except DriverStarved as failure:
        observe_failure(stand, failure)
    except DriverFailure as failure:
        _observe_broken_driver(stand, failure, f"between rows: {failure}")


def _observe_broken_driver(stand: Stand, failure: DriverFailure, detail: str) -> None:
    if failure.stderr_tail:
        stand.attach_text("engine-stderr.txt", failure.stderr_tail)
    _observe(stand, Failed(name=ENGINE, how=type(failure).__name__, detail=detail))


def _observe(stand: Stand, befell: Failed | Missing) -> None:
    """One thing befalls the engine in a row: the first failure, or why nothing could be tried."""
    others = [each for each in stand.observations if each.name == ENGINE]
    if any(isinstance(each, Failed) for each in others) or (others and isinstance(befell, Missing)):
        return
    stand.observations[:] = [each for each in stand.observations if each.name != ENGINE]
    stand.observe(befell)


def concluded(stand: Stand, error: Exception | None, duration: float) -> RowResult:
    """The result of a row whose check has ended, by this error or by itself; nothing is blamed on a full disk."""
    broken = None if error is None or observe_failure(stand, error) else error
    if broken is not None:
        trace = "".join(traceback.format_exception(broken))[-_TRACE_CHARACTERS:]
        stand.attach_text("harness-error.txt", trace)
    else:
        observe_survival(stand)
        observe_start(stand)
    result = _result_of(stand, broken, round(duration, 3))
    if result.violates and (full := room_is_gone(stand.plan.directory)):
        return _result_of(stand, full, result.duration_s)
    return result


def _result_of(stand: Stand, broken: Exception | None, duration: float) -> RowResult:
    """Judge the row, or record the harness's own fault."""
    row, plan = stand.row, stand.plan
    situation = Situation(gpu=plan.gpu, is_reference=plan.is_reference)
    judgement = judge(row, stand.observations, stand.thresholds, situation)
    error = f"{type(broken).__name__}: {broken}" if broken is not None else ""
    return RowResult(
        id=row.id,
        verdict=Verdict.ERROR if error else judgement.verdict,
        reason=error or judgement.reason,
        rehearsed=None if error else judgement.rehearsed,
        observations=stand.observations,
        findings=judgement.findings,
        evidence=stand.evidence,
        duration_s=duration,
        seed=stand.seed,
        weights=stand.weights,
        reproduce=f"{plan.reproduce} -k {row.id}",
    )
