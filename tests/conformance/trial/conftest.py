import tempfile

import msgspec
import pytest
from trial_support import make_plan, processes_of, wait_for

from conformance.catalogue import load_catalogue
from conformance.manifest import load_manifest
from conformance.record import read_record
from conformance.thresholds import load_thresholds
from conformance.trial.runner import Options, prepare, run_trial
from conformance.trial.signals import stoppable
from conformance.trial.stand import Stand


class Quiet:
    """A listener that keeps the order of things."""

    def __init__(self):
        self.started, self.finished = [], []

    def row_started(self, row_id):
        self.started.append(row_id)

    def row_finished(self, result):
        self.finished.append(result.id)


@pytest.fixture(scope="session", autouse=True)
def _locks_of_our_own(tmp_path_factory):
    """A trial of somebody else's on this host, with a row that wants to be alone, does not keep these tests waiting."""
    directory = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TMPDIR", str(directory))
        patched.setattr(tempfile, "tempdir", str(directory))
        yield


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


@pytest.fixture
def stand(tmp_path):
    """Makes a stand without an engine."""

    def make(**changes):
        row = load_catalogue().row("F-MEM-029")
        return Stand(row, make_plan(tmp_path, **changes), load_manifest("reference"), load_thresholds(), None)

    return make


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path):
    """No process started during a test outlives it, ours or one whose parent is gone."""
    yield
    wait_for(lambda: not processes_of(tmp_path), "all processes to end", seconds=2.0)
