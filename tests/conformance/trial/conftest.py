import msgspec
import pytest
from trial_support import processes_of, wait_for

from conformance.record import read_record
from conformance.trial.runner import Options, prepare, run_trial
from conformance.trial.signals import stoppable


class Quiet:
    """A listener that keeps the order of things."""

    def __init__(self):
        self.started, self.finished = [], []

    def row_started(self, row_id):
        self.started.append(row_id)

    def row_finished(self, result):
        self.finished.append(result.id)


@pytest.fixture
def listener():
    return Quiet()


@pytest.fixture
def trial(tmp_path, listener):
    """Runs a trial in this process and reads what it left: `trial(manifest, "F-QUAL-068", workers=1)`."""

    def run(manifest, *words, workers=1, **options):
        ready = prepare(Options(engine=str(manifest), words=words, out=tmp_path / "out", **options))
        with stoppable() as stop:
            finished = run_trial(ready, workers, listener, stop)
        assert msgspec.json.encode(read_record(finished.directory / "record.jsonl")) == msgspec.json.encode(
            finished.record
        )
        return finished

    return run


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path):
    """No process started during a test outlives it, ours or one whose parent is gone."""
    yield
    wait_for(lambda: not processes_of(tmp_path), "all processes to end", seconds=2.0)
