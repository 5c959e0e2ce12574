"""The gate as a pipeline uses it: today's date and the harness's own catalogue and thresholds."""

from __future__ import annotations

from datetime import UTC, datetime

from conformance.catalogue import load_catalogue
from conformance.comparison import Comparison
from conformance.gate.decision import Decision, decide
from conformance.gate.policy import Policy
from conformance.record import Record
from conformance.thresholds import load_thresholds


def apply_gate(record: Record, policy: Policy, comparison: Comparison | None = None) -> Decision:
    """What the gate says of a record today (UTC)."""
    today = datetime.now(UTC).date()
    return decide(record, policy, load_catalogue(), load_thresholds(), today=today, comparison=comparison)
