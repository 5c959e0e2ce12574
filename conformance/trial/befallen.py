"""What befell the engine during a row, as observations; and the row's result from all observations."""

from __future__ import annotations

from conformance.judge import ENGINE, Situation, judge
from conformance.protocol.failures import (
    CapabilityNotOffered,
    DriverFailure,
    DriverNotStarted,
    EngineRefused,
)
from conformance.protocol.tensors import BrokenTensor
from conformance.record import RowResult
from conformance.trial.stand import NotTried, Stand
from conformance.verdicts import Verdict

STARTS = "F-BUILD-001"


def observe_failure(stand: Stand, error: Exception) -> bool:
    """Turn an exception into an observation; False if it is the harness's own fault."""
    match error:
        case NotTried():
            stand.missing(ENGINE, error.reason)
        case CapabilityNotOffered():
            stand.missing(ENGINE, f"capability {error.capability!s} is not offered")
        case DriverNotStarted() if stand.row.id != STARTS:
            stand.missing(ENGINE, f"blocked by {STARTS}: {error}")
        case EngineRefused():
            stand.failed(ENGINE, "refused", str(error))
        case DriverFailure():
            stand.failed(ENGINE, type(error).__name__, str(error))
        case BrokenTensor():
            stand.failed(ENGINE, "lied about a tensor", str(error))
        case _:
            return False
    return True


def observe_survival(stand: Stand) -> None:
    """An engine that died after its last answer died of this row."""
    death = stand.engine.died_since_last_call()
    if death is not None:
        stand.failed(ENGINE, type(death).__name__, f"between rows: {death}")


def result_of(stand: Stand, broken: Exception | None, duration: float) -> RowResult:
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
