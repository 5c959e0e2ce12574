"""Shards of a small trial on disk, as `falsify run --shard` leaves them, and ways to spoil one."""

import hashlib

import msgspec

from conformance.record import EngineIdentity, Evidence, Header, ModelIdentity, RowResult, Shard
from conformance.trial.outcome import NOT_SELECTED
from conformance.trial.recorder import Recorder, untested
from conformance.trial.sharding import Part
from conformance.verdicts import Verdict

ROWS = [f"F-MEM-{number:03}" for number in range(21, 29)]
ENVIRONMENT = {"gpus": [], "cpu": {"model": "any"}, "python": "3.12.1", "libraries": {"torch": "2.11"}}
WHOLE = Header(
    schema="1.0",
    trial_id="t",
    started="2026-01-01T00:00:00+00:00",
    engine=EngineIdentity("parrot", manifest_sha256="e" * 64),
    model=ModelIdentity("fixture", "fixture", "a" * 64),
    rows=ROWS,
    selected=ROWS,
    rehearsal=False,
    seed=0,
    revision="git:1",
    revision_dirty=False,
    catalogue_sha256="c" * 64,
    thresholds_sha256="d" * 64,
    environment=ENVIRONMENT,
    command=["falsify", "run"],
)


class Nobody:
    def row_started(self, row_id):
        pass

    def row_finished(self, result):
        pass


def result(row_id, verdict=Verdict.CORROBORATED, **fields):
    return RowResult(row_id, verdict, reason="" if verdict is Verdict.CORROBORATED else "of the test", **fields)


def write_shard(out, index, of, *, verdicts=None, ended="completed", evidence=None, **changes):
    """One shard's run directory; `changes` are fields of its header."""
    directory = out / f"shard-{index}-of-{of}"
    directory.mkdir(parents=True)
    mine = Part(index, of).rows(changes.get("whole", ROWS))
    shard = Shard(index, of, changes.pop("whole", ROWS), changes.pop("inputs", "f" * 64))
    header = msgspec.structs.replace(WHOLE, **{"trial_id": directory.name, "selected": mine, "shard": shard} | changes)
    with Recorder(directory, header, Nobody()) as recorder:
        for row_id in header.selected:
            kept = [keep(directory, row_id, evidence)] if evidence else []
            recorder.record(result(row_id, (verdicts or {}).get(row_id, Verdict.CORROBORATED), evidence=kept))
        recorder.finish(ended, lambda row_id: untested(row_id, NOT_SELECTED))
    return directory


def keep(directory, row_id, text):
    path = directory / "evidence" / row_id / "said.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return Evidence(f"evidence/{row_id}/said.txt", hashlib.sha256(text.encode()).hexdigest(), len(text))
