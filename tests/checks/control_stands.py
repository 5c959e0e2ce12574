"""Stands and trials for engines that are the reference with one thing changed (`tests/engines/`)."""

import json
import os
import subprocess
import sys
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
from conformance.trial.stand import Stand

ROOT = Path(__file__).parents[2]
SLOWED = ROOT / "tests" / "engines" / "slowed.py"


def manifest_of(directory, driver, *, source=SLOWED, formats=()):
    path = directory / f"{driver}.toml"
    path.write_text(
        f'[engine]\nname = "{driver}"\nreference = true\nformats = {json.dumps(list(formats))}\n\n'
        f'[driver]\ncommand = ["{{python}}", "{source}", "{driver}"]\n'
    )
    return path


def tried(directory, driver, *rows, model="random", timeout=420):
    """The rows of a whole trial of this engine, by id."""
    command = [sys.executable, "-m", "conformance", "run", "--engine", str(manifest_of(directory, driver))]
    command += ["--model", model, "--out", str(directory / "out"), "-n1", *(f"-k{row}" for row in rows)]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    record = directory / "out" / "latest" / "record.jsonl"
    assert record.is_file(), done.stdout + done.stderr
    return {row.id: row for row in read_record(record).rows if row.id in rows}


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
