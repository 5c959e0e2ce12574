"""Steps that make the GPU's records: bounded, gathered, without the machine's paths, nothing left running."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import psutil
import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_records.py"
spec = importlib.util.spec_from_file_location("gpu_records", SCRIPT)
gpu_records = importlib.util.module_from_spec(spec)
sys.modules["gpu_records"] = gpu_records
sys.path.insert(0, str(SCRIPT.parent))
spec.loader.exec_module(gpu_records)
sys.path.remove(str(SCRIPT.parent))

WRITES = """
import sys
from pathlib import Path
out = Path(sys.argv[1])
(out / "exchange").mkdir()
(out / "exchange" / "tensor.txt").write_text("large")
(out / "record.jsonl").write_text(f"{out} {sys.prefix} {Path.cwd()}")
(out / "weights.safetensors").write_bytes(b"x")
print("kept", out)
"""
HANGS = "import subprocess, time; subprocess.Popen(['sleep', '983']); print('begun', flush=True); time.sleep(984)"


def steps(*programs, seconds=20.0):
    return [
        gpu_records.Step(f"step{place}", seconds, ("-c", program, "{out}")) for place, program in enumerate(programs)
    ]


@pytest.fixture
def recorded(tmp_path):
    def run(chosen, seconds=60.0):
        (tmp_path / "out").mkdir(exist_ok=True)
        found = gpu_records.record(chosen, tmp_path / "out", seconds, tmp_path / "work")
        told = json.loads((tmp_path / "out" / "steps.json").read_text())
        assert [step["ended"] for step in told] == [done.ended for done in found]
        return found

    return run


def test_what_is_worth_keeping_is_kept_without_paths(recorded, tmp_path):
    (done,) = recorded(steps(WRITES.replace("{", "{{").replace("}", "}}")))
    assert done.ended == "exit status 0", done.told
    kept = sorted(path.name for path in (tmp_path / "out" / "step0").rglob("*"))
    assert kept == ["record.jsonl", "said.log"]
    assert (tmp_path / "out" / "step0" / "record.jsonl").read_text() == "/trials /env /project"


def test_a_step_that_hangs_is_cut_with_what_it_started_and_the_next_one_runs(recorded):
    found = recorded(steps(HANGS, "print('second')", seconds=1.5))
    assert [done.ended for done in found] == ["cut after 2 s", "exit status 0"]
    assert "begun" in found[0].told
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "983"]]


def test_a_step_for_which_no_time_is_left_is_told(recorded):
    found = recorded(steps("import time; time.sleep(0.5)", "print()"), seconds=0.2)
    assert [done.ended for done in found][1] == "no time was left"


def test_every_step_names_something_that_is_there():
    for step in gpu_records.STEPS:
        scripts = [word for word in step.words if word.endswith(".py")]
        assert all((gpu_records.ROOT / script).is_file() for script in scripts)
        assert "{out}" in " ".join(step.words) or "pytest" in step.words


def test_a_step_of_another_name_is_refused(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["gpu_records.py", str(tmp_path), "--steps", "trail"])
    with pytest.raises(SystemExit):
        gpu_records.main()
    assert "no step is named trail; there are trial, memcheck" in capsys.readouterr().err
