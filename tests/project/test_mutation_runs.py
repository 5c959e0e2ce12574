"""Mutation testing itself: how a run of tests ends is told as it ended, and no run helps or hinders the next."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

MUTATION = Path(__file__).parents[1] / "mutation"
TESTS = {
    "test_good.py": "import thing\ndef test_it(): assert thing.VALUE == 1\n",
    "test_bad.py": "import thing\ndef test_it(): assert thing.VALUE == 2\n",
    "test_endless.py": "def test_it():\n    while True: pass\n",
    "test_gone.py": "import os\ndef test_it(): os._exit(9)\n",
    "test_unreadable.py": "import there_is_no_such_thing\n",
    "test_slow.py": "import pytest\n@pytest.mark.slow\ndef test_it(): assert False\n",
    "test_hungry.py": "def test_it(): bytearray(64 << 30)\n",
    "test_leaving.py": (
        "import pathlib, subprocess\n"
        "def test_it():\n"
        "    one = subprocess.Popen(['sleep', '60'])\n"
        "    pathlib.Path('pid').write_text(str(one.pid))\n"
        "    one.returncode = 0\n"
    ),
}


@pytest.fixture
def runs(tmp_path):
    """Gives the runs of tests, one after another, of one process."""
    (tmp_path / "thing.py").write_text("VALUE = 1\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    for name, text in TESTS.items():
        (tmp_path / name).write_text(text)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, str(MUTATION / "forks.py")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipes) as process:

        def run(*names, marks="not slow", seconds=60.0):
            asked = {
                "module": "thing",
                "tests": [f"test_{name}.py" for name in names],
                "marks": marks,
                "seconds": seconds,
            }
            process.stdin.write(json.dumps(asked) + "\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield run
        process.stdin.close()


def test_each_end_is_told_apart(runs, tmp_path):
    assert runs("good")["ended"] == 0
    assert runs("good", "bad")["ended"] == 1
    assert "assert 1 == 2" in runs("bad")["output"]
    assert runs("endless", seconds=1.0)["ended"] is None
    assert runs("gone")["ended"] == 9
    assert runs("unreadable")["ended"] == 2
    assert runs("slow")["ended"] == 5
    assert runs("slow", marks="slow")["ended"] == 1
    assert "MemoryError" in runs("hungry")["output"]
    assert runs("good")["ended"] == 0


def test_a_changed_module_is_the_one_that_is_tested(runs, tmp_path):
    assert runs("good")["ended"] == 0
    (tmp_path / "thing.py").write_text("VALUE = 3\n")
    assert runs("good")["ended"] == 1
    (tmp_path / "thing.py").write_text("VALUE = 1\n")
    assert runs("good")["ended"] == 0


@pytest.mark.parametrize("text", ["VALUE = 1 / 0\n", "VALUE = 1 is 1\n", "VALUE =\n"])
def test_a_module_that_cannot_be_imported_is_told_apart_from_one_that_fails(runs, tmp_path, text):
    (tmp_path / "thing.py").write_text(text)

    assert runs("good")["ended"] == 70


def test_what_a_run_started_ends_with_it(runs, tmp_path):
    runs("leaving")
    left = int((tmp_path / "pid").read_text())

    until = time.monotonic() + 10
    while _lives(left) and time.monotonic() < until:
        time.sleep(0.02)
    assert not _lives(left)


def _lives(pid):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


SURVIVOR = {"module": "a.py", "operator": "core/ReplaceComparisonOperator_Is_Eq", "change": "a is b -> a == b"}


@pytest.mark.parametrize(
    ("reason", "fits"),
    [
        ({}, True),
        ({"module": "a.py", "operator": "_Is_Eq", "change": "a is b"}, True),
        ({"module": "b.py"}, False),
        ({"operator": "_Is_NotEq"}, False),
        ({"change": "a is c"}, False),
    ],
)
def test_a_reason_speaks_of_the_survivors_that_fit_all_it_names(monkeypatch, reason, fits):
    monkeypatch.syspath_prepend(MUTATION)
    from run import reason_of

    assert reason_of(SURVIVOR, [reason | {"why": "because"}]) == ("because" if fits else "")


def test_results_of_some_modules_leave_those_of_the_others(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(MUTATION)
    import run

    (tmp_path / "results.jsonl").write_text("")
    monkeypatch.setattr(run, "RESULTS", tmp_path / "mutation.json")
    monkeypatch.setattr(run, "_lines", lambda _: [{"module": "conformance/judge.py"}])
    monkeypatch.setattr(run, "summary_of", lambda *_: {"mutants": 2, "killed": 2, "survived": 0})
    standing = {"conformance/record.py": {"mutants": 9, "killed": 8, "survived": 1}}
    run.RESULTS.write_text(json.dumps({"modules": standing | {"conformance/judge.py": {"mutants": 1}}}))

    run.write_results(tmp_path)

    told = json.loads(run.RESULTS.read_text())["modules"]
    assert told == standing | {"conformance/judge.py": {"mutants": 2, "killed": 2, "survived": 0}}
