"""What a check can observe. A check builds these and nothing else; `conformance.judge` alone decides.

Every observation has a `name`, unique within its row. The catalogue lists the names that a row must bring
(`observes`); a row that lacks one can never be CORROBORATED. Numbers a verdict depends on are not here: they
stand in `thresholds.toml` under `[<row id>.<name>]`.

`hardening` marks a demand beyond the criterion's own words: WARNING for a foreign engine, mandatory for ours.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec


class Observed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="kind"):
    """Base of all observations."""

    name: str
    hardening: bool = False
    note: str = ""


class Equal(Observed, frozen=True, kw_only=True, tag="equal"):
    """Two JSON values that must be the same; `expected` comes from a witness of ours, never from the engine."""

    expected: Any
    observed: Any


class Measured(Observed, frozen=True, kw_only=True, tag="measured"):
    """One number against the limit in the thresholds; for quantities without noise."""

    value: float
    unit: str
    context: dict[str, float] = {}


class Sample(Observed, frozen=True, kw_only=True, tag="sample"):
    """One value per fresh process against a limit, decided by rule R1 (one-sided t interval on logarithms)."""

    values: list[float]
    unit: str
    context: dict[str, float] = {}


class Growth(Observed, frozen=True, kw_only=True, tag="growth"):
    """Bytes in use after each of a series of like operations, decided by rule R3 (block steps).

    `account` is the engine's own count and alone never corroborates; `witness` is NVML's or the system's.
    """

    account: list[int]
    witness: list[int]
    witness_name: str
    warm_up: int


class CaseFailure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One generated file that the engine got wrong: how, in which class, and the minimal file kept for replay.

    `how` is one of crash, hang, misread, wrong_accept, wrong_reject, unclear_error.
    """

    case_class: str
    how: str
    detail: str
    file: str = ""
    sha256: str = ""


class Cases(Observed, frozen=True, kw_only=True, tag="cases"):
    """Property-based examples by class: how many ran in each, how many each must have, and what failed."""

    ran: dict[str, int]
    required: dict[str, int]
    failures: list[CaseFailure] = []


class Agreement(StrEnum):
    """How two greedy sequences relate under the near-tie rule R6."""

    IDENTICAL = "identical"
    TIE = "tie"
    DIVERGED = "diverged"


class Tokens(Observed, frozen=True, kw_only=True, tag="tokens"):
    """Greedy ids against golden ones.

    `margins` are the reference's top-1 minus top-2 logits at each step. At a first difference inside the
    near-tie margin, `reanchored` holds the ids that the engine gave after being forced back to the reference.
    """

    expected: list[int]
    observed: list[int]
    margins: list[float]
    reanchored: list[int] | None = None


class LogitsDistance(Observed, frozen=True, kw_only=True, tag="logits"):
    """Logits against golden ones over several positions: largest difference, smallest cosine, argmax per step.

    `noise` is how far the golden run's own logits are from exact ones, where that is known.
    """

    positions: int
    max_abs: float
    min_cosine: float
    argmax_expected: list[int]
    argmax_observed: list[int]
    margins: list[float]
    noise: float | None = None


class Missing(Observed, frozen=True, kw_only=True, tag="missing"):
    """The clause could not be tried; the reason stands in the record. Judged UNTESTED."""

    reason: str


class Undecided(Observed, frozen=True, kw_only=True, tag="undecided"):
    """The measurement was made and says nothing. Judged INCONCLUSIVE."""

    reason: str


class Failed(Observed, frozen=True, kw_only=True, tag="failed"):
    """The engine did not do what the criterion demands: it died, hung, refused, or broke the protocol."""

    how: str
    detail: str


Observation = Equal | Measured | Sample | Growth | Cases | Tokens | LogitsDistance | Missing | Undecided | Failed
