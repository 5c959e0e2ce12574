"""Stands and trials for engines that are the reference with one thing changed (`tests/engines/`)."""

import json
from contextlib import contextmanager
from pathlib import Path

from conformance.catalogue import load_catalogue
from conformance.corpus.models import resolve_model
from conformance.judge import Situation, judge
from conformance.manifest import load_manifest
from conformance.protocol.client import Engine
from conformance.record import ModelIdentity, read_record
from conformance.thresholds import load_thresholds
from conformance.trial.launching import launch_of
from conformance.trial.plan import Plan
from conformance.trial.runner import Options, prepare, run_trial
from conformance.trial.signals import stoppable
from conformance.trial.stand import Stand

SLOWED = Path(__file__).parents[1] / "engines" / "slowed.py"


def manifest_of(directory, driver, *, source=SLOWED, formats=()):
    path = directory / f"{driver}.toml"
    path.write_text(
        f'[engine]\nname = "{driver}"\nreference = true\nformats = {json.dumps(list(formats))}\n\n'
        f'[driver]\ncommand = ["{{python}}", "{source}", "{driver}"]\n'
    )
    return path


class Unheard:
    """A listener that nobody needs: these trials are read when they are over."""

    def row_started(self, row_id):
        pass

    def row_finished(self, result):
        pass


def trial_of(manifest, rows, directory, *, model=None):
    """A whole trial in this process: its rows by id, and its directory."""
    options = Options(engine=str(manifest), words=tuple(rows), model=model, out=directory / "out")
    with stoppable() as stop:
        finished = run_trial(prepare(options), 1, Unheard(), stop)
    rows_of_record = read_record(finished.directory / "record.jsonl").rows
    return {row.id: row for row in rows_of_record if row.id in rows}, finished.directory


def tried(directory, driver, *rows, model="random"):
    """The rows of a whole trial of this engine, by id."""
    return trial_of(manifest_of(directory, driver), rows, directory, model=model)[0]


@contextmanager
def stand_of(directory, driver, row_id, *, peer="none", others=()):
    """A stand for one row of a trial with others, with the engine as a real process; on the CPU."""
    model = resolve_model("random")
    plan = Plan(
        run_dir=str(directory),
        engine=str(manifest_of(directory, driver)),
        model=ModelIdentity("random", "random", model.sha256),
        model_dir=str(model.directory),
        goldens_dir=str(model.goldens_directory),
        rows=[row_id, *others],
        seed=7,
        shuffle=False,
        gpu=False,
        is_reference=True,
        reproduce="falsify run",
        peer=str(peer),
    )
    manifest = load_manifest(plan.engine)
    with Engine(launch_of(manifest, plan)) as engine:
        yield Stand(load_catalogue().row(row_id), plan, manifest, load_thresholds(), engine)


def judged(stand):
    """The row's judgement as on a GPU, from what was observed here."""
    return judge(stand.row, stand.observations, stand.thresholds, Situation(gpu=True, is_reference=True))
