"""A small world: five rows, limits, and records that the real judge judged."""

import hashlib

import msgspec

from conformance.catalogue import Catalogue, Row, Section
from conformance.judge import Situation, judge
from conformance.observations import Equal, Measured, Missing
from conformance.record import EngineIdentity, Footer, Header, ModelIdentity, Record, RowResult, counts
from conformance.thresholds import Limit, Thresholds
from conformance.trial.outcome import exit_code, headline_verdict

ROWS = tuple(
    Row(f"F-A-00{number}", "a", f"test {number}", "criterion", "FAIL", observes=("right",), needs=needs)
    for number, needs in enumerate(((), (), (), (), ("cuda",)), start=1)
)
SECTION = Section("a", "I", "All")


def catalogue(rows=ROWS):
    return Catalogue((SECTION,), rows, hashlib.sha256(repr(rows).encode()).hexdigest())


def thresholds(limit=10.0):
    rows = {row.id: {"right": Limit("of the test", "<=", limit=limit, unit="ms")} for row in ROWS}
    return Thresholds(rows, hashlib.sha256(str(limit).encode()).hexdigest())


GOOD = [Equal(name="right", expected=1, observed=1)]
BAD = [Equal(name="right", expected=1, observed=2)]
SLOW = [Measured(name="right", value=7.0, unit="ms")]
NO_PEER = [Missing(name="right", reason="no peer installed: llama.cpp")]


def result(row, observations, *, gpu=True, limits=None):
    judged = judge(row, observations, limits or thresholds(), Situation(gpu=gpu, is_reference=True))
    seen = list(observations)
    return RowResult(row.id, judged.verdict, judged.reason, judged.rehearsed, seen, judged.findings)


def record(seen=None, *, gpu=True, rows=ROWS, selected=None, ended="completed", trial_id="now", **header):
    """A record in which every row observed something right, but for those in `seen` (by number, 1 to 5)."""
    seen = seen or {}
    results = [
        value if isinstance(value, RowResult) else result(row, value, gpu=gpu)
        for row in rows
        for value in [seen.get(row.number, GOOD)]
    ]
    ids = [row.id for row in rows]
    head = Header(
        schema="1.0", trial_id=trial_id, started="2026-11-24T10:00:00+00:00",
        engine=EngineIdentity("reference", is_reference=True), model=ModelIdentity("fixture", "fixture", "f" * 64),
        rows=ids, selected=ids if selected is None else selected, rehearsal=not gpu, seed=0, revision="git:1",
        revision_dirty=False, catalogue_sha256=catalogue(rows).sha256, thresholds_sha256=thresholds().sha256,
        environment={"cpu": {"model": "x", "cores": 2}}, command=["falsify", "run"],
    )  # fmt: skip
    head = msgspec.structs.replace(head, **header)
    code = exit_code(results, rehearsal=head.rehearsal, ended=ended)
    return Record(head, results, Footer(ended, "", 1.0, code, counts(results), headline_verdict(results)))
