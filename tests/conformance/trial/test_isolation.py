"""A trial is unaffected by the project it is started in, by its neighbours, and by what it cannot write."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from trial_support import ROOT, TIMEOUT_S, command, environment, falsify, record_in, write_manifest

from conformance.record import read_record
from conformance.sources.workshop import fresh_environment
from conformance.verdicts import ExitCode, Verdict

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


def verdicts(record):
    return [(row.id, row.verdict, row.reason) for row in record.rows]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_hostile_project_changes_nothing(tmp_path, hostile, workers):
    manifest = write_manifest(tmp_path)
    variables = {
        "PYTEST_ADDOPTS": "--no-such-option -k nothing",
        "PYTEST_PLUGINS": "emptying",
        "PYTEST_XDIST_AUTO_NUM_WORKERS": "none",
        "HYPOTHESIS_STORAGE_DIRECTORY": "/proc/none",
        "CI": "true",
        "GIT_DIR": "/proc/none",
    }

    calm = falsify(*ROWS, "--engine", manifest, "--out", tmp_path / "calm", "-n", 1)
    rough = subprocess.run(
        [sys.executable, "-P", *command(*ROWS, "--engine", manifest, "--out", "rough", "-n", workers)[1:]],
        env={**environment(**variables), "PYTHONPATH": f"{ROOT}{os.pathsep}{hostile}"},
        cwd=hostile,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert (calm.returncode, rough.returncode) == (ExitCode.OPEN, ExitCode.OPEN), rough.stdout + rough.stderr
    assert verdicts(record_in(tmp_path / "calm")) == verdicts(record_in(hostile / "rough"))
    assert record_in(tmp_path / "calm").header.revision == record_in(hostile / "rough").header.revision
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


def full(limit):
    """A file that takes `limit` bytes and then is on a full disk."""

    class Full:
        def __init__(self, file):
            self._file, self._left = file, limit

        def write(self, data):
            self._left -= len(data)
            if self._left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self._file.write(data)

        def flush(self):
            self._file.flush()

        def close(self):
            self._file.close()

    return Full


@pytest.mark.parametrize(("room", "lines"), [(100, 0), (3000, 1)])
def test_a_full_disk_ends_the_trial_with_four_and_no_footer(tmp_path, monkeypatch, capsys, room, lines):
    from conformance.cli import main
    from conformance.trial import recorder

    opened = Path.open
    monkeypatch.setattr(
        Path,
        "open",
        lambda self, *a, **k: full(room)(opened(self, *a, **k)) if a == ("xb",) and self.name == recorder.RECORD_FILE
        else opened(self, *a, **k),
    )  # fmt: skip
    monkeypatch.setattr(
        sys,
        "argv",
        ["falsify", "run", *ROWS, "--engine", str(write_manifest(tmp_path)), "--out", str(tmp_path / "o"), "-n", "1"],
    )

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == ExitCode.HARNESS
    assert capsys.readouterr().err.endswith("OSError: [Errno 28] No space left on device\n")
    (path,) = (each for each in (tmp_path / "o").glob("*/record.jsonl") if not each.parent.is_symlink())
    if lines:
        record = read_record(path)
        assert record.truncated
        assert Verdict.FALSIFIED not in {row.verdict for row in record.rows}
    else:
        assert path.read_bytes() == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=28k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this machine does not let us mount")
    try:
        done = falsify(*ROWS, "--engine", write_manifest(tmp_path), "--out", disk, "-n", 1)
        records = [read_record(path) for path in disk.glob("2*/record.jsonl") if path.stat().st_size]
    finally:
        subprocess.run(["umount", disk], check=True)

    assert done.returncode in {ExitCode.USAGE, ExitCode.HARNESS}
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert all(record.truncated or record.footer.exit_code != ExitCode.FALSIFIED for record in records)


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
