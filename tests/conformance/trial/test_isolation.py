"""A trial is unaffected by the project it is started in and by its neighbours."""

import os
import subprocess
import sys

import pytest
from trial_support import ROOT, TIMEOUT_S, command, environment, falsify, record_in, write_manifest

from conformance.record import read_record
from conformance.sources.workshop import fresh_environment
from conformance.verdicts import ExitCode

ROWS = ("-k", "F-CUDA-013", "-k", "F-QUAL-068")
HOSTILE_CONFTEST = "raise RuntimeError('the conftest of somebody else')\n"
HOSTILE_INI = (
    "[pytest]\naddopts = --no-such-option\nminversion = 99\npython_functions = nothing\ntestpaths = elsewhere\n"
)
HOSTILE_PLUGIN = "def pytest_collection_modifyitems(items):\n    items.clear()\n"


@pytest.fixture
def hostile(tmp_path):
    """The repository of an engine's author who also uses pytest, with everything in it that could leak into a trial."""
    place = tmp_path / "engine"
    for name in ("checks", "reports", "tests"):
        (place / name).mkdir(parents=True)
        (place / name / "__init__.py").write_text("raise RuntimeError('a package of the same name')\n")
        (place / name / "conftest.py").write_text(HOSTILE_CONFTEST)
    for name in ("conftest.py", "sitecustomize.py"):
        (place / name).write_text(HOSTILE_CONFTEST)
    (place / "pytest.ini").write_text(HOSTILE_INI)
    (place / "emptying.py").write_text(HOSTILE_PLUGIN)
    (place / ".hypothesis").write_text("a file where a directory is expected")
    return place


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """A trial that nothing hostile is near: how it ended, and its record."""
    place = tmp_path_factory.mktemp("calm")
    done = falsify(*ROWS, "--engine", write_manifest(place), "--out", place / "out", "-n", 1)
    return done, record_in(place / "out")


def verdicts(record):
    return [(row.id, row.verdict, row.reason) for row in record.rows]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_hostile_project_changes_nothing(tmp_path, hostile, calm, workers):
    manifest = write_manifest(tmp_path)
    variables = {
        "PYTEST_ADDOPTS": "--no-such-option -k nothing",
        "PYTEST_PLUGINS": "emptying",
        "PYTEST_XDIST_AUTO_NUM_WORKERS": "none",
        "HYPOTHESIS_STORAGE_DIRECTORY": "/proc/none",
        "CI": "true",
        "GIT_DIR": "/proc/none",
    }

    undisturbed, record = calm
    rough = subprocess.run(
        [sys.executable, "-P", *command(*ROWS, "--engine", manifest, "--out", "rough", "-n", workers)[1:]],
        env={**environment(**variables), "PYTHONPATH": f"{ROOT}{os.pathsep}{hostile}"},
        cwd=hostile,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert (undisturbed.returncode, rough.returncode) == (ExitCode.OPEN, ExitCode.OPEN), rough.stdout + rough.stderr
    assert verdicts(record) == verdicts(record_in(hostile / "rough"))
    assert record.header.revision == record_in(hostile / "rough").header.revision
    left = {path.name for path in hostile.iterdir() if path.name != "__pycache__"}
    planted = {"checks", "reports", "tests", "conftest.py", "sitecustomize.py", "pytest.ini"}
    planted |= {"emptying.py", ".hypothesis"}
    assert left == planted | {"rough"}


@pytest.mark.slow
def test_two_trials_in_one_place_at_the_same_time_do_not_disturb_each_other(tmp_path):
    manifest, out = write_manifest(tmp_path), tmp_path / "out"
    pair = [
        subprocess.Popen(command(*ROWS, "--engine", manifest, "--out", out, "-n", workers), env=environment(), cwd=ROOT,
                         stdout=subprocess.DEVNULL)
        for workers in (1, 2)
    ]  # fmt: skip

    assert [process.wait(TIMEOUT_S) for process in pair] == [ExitCode.OPEN] * 2

    directories = [path for path in out.iterdir() if path.name != "latest"]
    records = [read_record(path / "record.jsonl") for path in directories]
    assert len(directories) == 2
    assert verdicts(records[0]) == verdicts(records[1])
    assert (out / "latest").resolve() in directories


def test_a_directory_called_latest_is_left_alone(tmp_path):
    (tmp_path / "out" / "latest").mkdir(parents=True)

    done = falsify("-k", "F-CUDA-013", "--engine", write_manifest(tmp_path), "--out", tmp_path / "out", "-n", 1)

    assert done.returncode == ExitCode.OPEN
    assert not list((tmp_path / "out" / "latest").iterdir())


@pytest.mark.slow
def test_an_installed_wheel_without_git_runs_a_row(tmp_path):
    source = tmp_path / "source"
    names = ("conformance", "reference_engine", "checks", "reports", "pyproject.toml", "README.md", "LICENSE")
    subprocess.run(["cp", "-r", *(ROOT / name for name in names if (ROOT / name).exists()), _made(source)], check=True)
    (source / "README.md").touch()
    pip = [sys.executable, "-m", "pip", "--quiet"]
    built = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path / "wheels"), str(source)]
    subprocess.run([*pip, *built], check=True, capture_output=True, timeout=TIMEOUT_S, env=environment(PYTHONPATH=""))
    (wheel,) = (tmp_path / "wheels").glob("*.whl")
    python, site = fresh_environment(tmp_path / "environment")
    placed = ["--python", str(python), "install", "--no-index", "--no-deps", str(wheel)]
    subprocess.run([*pip, *placed], check=True, capture_output=True, timeout=TIMEOUT_S)

    done = subprocess.run(
        [python.parent / "falsify", "run", *ROWS, "--engine", write_manifest(tmp_path), "--out", tmp_path / "out"],
        env=environment(PYTHONPATH=""),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == ExitCode.OPEN, done.stdout + done.stderr
    header = record_in(tmp_path / "out").header
    assert header.revision.startswith("sources:")
    assert (site / "checks" / "test_ii_cuda.py").is_file()


def _made(directory):
    directory.mkdir()
    return directory
