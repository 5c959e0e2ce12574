"""Steps that make the GPU's records: bounded, gathered into few files, continued, and nothing left running."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
import gpu_records  # noqa: E402  scripts import each other by name
import gpu_steps  # noqa: E402
import packing  # noqa: E402
from gpu_steps import Step  # noqa: E402

sys.path.remove(str(BENCHMARKS))

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
COUNTS = """
import sys, time
from pathlib import Path
out = Path(sys.argv[1])
(out / "lib").mkdir(exist_ok=True)
for number in range(3):
    if not (out / f"{number}.json").exists():
        (out / f"{number}.json").write_text("1")
        (out / "lib" / f"{number}.so").write_bytes(bytes([number]) * 100)
        time.sleep(float(sys.argv[2]))
        if float(sys.argv[2]):
            sys.exit(9)
print("all there")
"""


def steps(*programs, seconds=20.0, **fields):
    plain = {"predicted": 0.01} | fields
    return [
        Step(f"step{place}", seconds=seconds, words=("-c", program, "{out}"), **plain)
        for place, program in enumerate(programs)
    ]


@pytest.fixture
def recorded(tmp_path):
    def run(chosen, seconds=60.0, out="out", resume=()):
        (tmp_path / out).mkdir(exist_ok=True)
        campaign = gpu_records.Campaign(tmp_path / out, tmp_path / f"work-{out}")
        for earlier in resume:
            campaign.resume(tmp_path / earlier)
        found = campaign.record(chosen, seconds)
        told = json.loads((tmp_path / out / "steps.json").read_text())
        assert [step["ended"] for step in told] == [done.ended for done in campaign.done.values()]
        packing.unpack(tmp_path / out / "records", tmp_path / f"read-{out}")
        return found

    return run


def test_what_is_worth_keeping_is_kept_without_paths(recorded, tmp_path):
    (done,) = recorded(steps(WRITES))
    assert done.ended == "exit status 0", done.told
    assert done.finished
    kept = sorted(path.name for path in (tmp_path / "read-out" / "step0").rglob("*"))
    assert kept == ["record.jsonl", "said.log"]
    assert (tmp_path / "read-out" / "step0" / "record.jsonl").read_text() == "/trials /env /project"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["records.tar.gz.000", "steps.json"]


def test_a_step_that_hangs_is_cut_with_what_it_started_and_the_next_one_runs(recorded):
    found = recorded(steps(HANGS, "print('second')", seconds=1.5))
    assert [done.ended for done in found] == ["cut after 2 s", "exit status 0"]
    assert [done.finished for done in found] == [False, True]
    assert "begun" in found[0].told
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "983"]]


def test_a_step_is_told_how_long_it_may_begin_something(recorded):
    step = Step("told", 0.01, 100.0, ("-c", "import sys; print(sys.argv[1])", "{seconds}"))
    (done,) = recorded([step], seconds=65.0)
    assert done.told.strip() in {"19", "20"}


def test_a_step_for_which_too_little_is_left_is_not_begun(recorded):
    found = recorded(steps("print()", predicted=50.0), seconds=20.0)
    assert found[0].ended == "not begun: 15 s left, 50 needed"
    assert not found[0].finished


def test_a_later_call_goes_on_where_an_earlier_one_was_cut_and_runs_nothing_twice(recorded, tmp_path):
    first, counting = steps("print('once')", COUNTS, goes_on=True, binary=True)
    words = (*counting.words, "0.1")
    one = Step("step1", 0.01, 20.0, words, goes_on=True, binary=True)
    assert [done.finished for done in recorded([first, one])] == [True, False]
    again = Step("step1", 0.01, 20.0, (*counting.words, "0"), goes_on=True, binary=True)
    broken = Step("step0", 0.01, 20.0, ("-c", "raise SystemExit(5)", "{out}"))
    found = recorded([broken, again], out="second", resume=["out"])

    assert [done.finished for done in found] == [True, True]
    anew = Step("step0", 0.01, 20.0, ("-c", "raise SystemExit(5)", "{out}"), anew=True)
    assert recorded([anew], out="third", resume=["out"])[0].ended == "exit status 5"
    whole = tmp_path / "read-second"
    assert "once" in (whole / "step0" / "said.log").read_text()
    assert sorted(path.name for path in (whole / "step1").glob("*.json")) == ["0.json", "1.json", "2.json"]
    packing.unpack(tmp_path / "second" / "binaries", tmp_path / "binaries")
    assert sorted(path.name for path in (tmp_path / "binaries").iterdir()) == ["0.so", "1.so", "2.so"]


def test_calls_of_the_command_go_on_and_what_came_back_is_unpacked(tmp_path, monkeypatch, capsys):
    one, hangs = steps("print('one')", HANGS.replace("983", "985"), goes_on=True, seconds=2.0)
    monkeypatch.setattr(gpu_steps, "STEPS", (one, hangs))

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["gpu_records.py", *map(str, words)])
        return gpu_records.main(), capsys.readouterr().out

    code, said = call(tmp_path / "first", "--steps", "step0,step1", "--work", tmp_path / "work")
    assert code == 1, said
    assert "step1: cut after 2 s" in said
    monkeypatch.setattr(gpu_steps, "STEPS", (one, steps("print('rest')", "print('rest')", goes_on=True)[1]))
    code, said = call(tmp_path / "second", "--steps", "step0,step1", "--resume", tmp_path / "first")
    assert code == 0, said
    assert "step0: finished before" in said

    assert call(tmp_path / "second", "--unpack", tmp_path / "back")[0] == 0
    lines = (tmp_path / "back" / "step1" / "said.log").read_text().splitlines()
    assert (lines[0], lines[-1]) == ("begun", "rest")
    assert call(tmp_path / "none", "--unpack", tmp_path / "nothing")[0] == 1


def test_a_directory_comes_back_from_parts_as_it_was_and_none_is_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "PART_BYTES", 1000)
    source = tmp_path / "source"
    (source / "deep" / "er").mkdir(parents=True)
    (source / "deep" / "er" / "noise.bin").write_bytes(bytes((i * i * 37 + i // 7) % 251 for i in range(2500)))
    parts = packing.pack(source, tmp_path / "records")

    assert len(parts) > 1
    assert all(part.stat().st_size <= 1000 for part in parts)
    assert packing.unpack(tmp_path / "records", tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "er" / "noise.bin").read_bytes() == (
        source / "deep" / "er" / "noise.bin"
    ).read_bytes()
    with pytest.raises(packing.TooLarge):
        packing.pack(source, tmp_path / "records", most=1)
    (source / "deep" / "er" / "noise.bin").write_bytes(b"short")
    assert packing.pack(source, tmp_path / "records") == parts[:1] == packing.parts_of(tmp_path / "records")
    parts[0].unlink()
    assert not packing.unpack(tmp_path / "records", tmp_path / "none")


def test_every_step_names_something_that_is_there():
    for step in gpu_steps.STEPS:
        scripts = [word for word in step.words if word.endswith((".py", ".sh"))]
        assert all((gpu_records.ROOT / script).is_file() for script in scripts)
        assert "{out}" in " ".join(step.words) or "pytest" in step.words or step.name == "prepare"
        assert step.predicted <= step.seconds <= 570
    assert len({step.name for step in gpu_steps.STEPS}) == len(gpu_steps.STEPS)


def test_the_killers_of_the_nine_rows_and_all_controls_have_a_step():
    from conformance.faults.planting import known_faults

    known = known_faults()
    rows = {"F-MEM-029", "F-MEM-034", "F-ERR-092", *(f"F-PERF-{number:03d}" for number in (82, 84, 86, 88, 89, 90))}
    expected = {row for name in gpu_steps.KILLS for row in known[name].expects}
    assert rows <= expected
    assert all(known[name].machine == "gpu" for name in gpu_steps.KILLS)

    source = (gpu_records.ROOT / "tests" / "checks" / "test_controls.py").read_text()
    assert all(f'"{driver}"' in source for driver in gpu_steps.CONTROLS)
    command = [sys.executable, "-m", "pytest", "-q", "--collect-only", "-n", "0", "-m", "gpu", "tests/checks"]
    found = subprocess.run(command, cwd=gpu_records.ROOT, capture_output=True, text=True, timeout=120, check=False)
    listed = {line.split("[")[1].rstrip("]") for line in found.stdout.splitlines() if "on_a_gpu[" in line}
    assert listed == set(gpu_steps.CONTROLS)


def test_options_of_every_step_are_understood_by_the_command_line():
    import typer.main

    from conformance.cli import app

    commands = typer.main.get_command(app).commands
    for step in gpu_steps.STEPS:
        if step.words[:2] == gpu_steps.FALSIFY:
            words = [word.replace("{out}", "/tmp").replace("{seconds}", "9") for word in step.words[2:]]
            assert commands[words[0]].make_context(words[0], words[1:]) is not None


@pytest.mark.parametrize(
    ("options", "said", "code"),
    [
        (["--steps", "trail"], "no step is named trail; there are prepare, trial", 2),
        (["--steps", "untimed,whole", "--plan"], "call 1   130 s  untimed-1", 0),
    ],
)
def test_a_plan_is_told_and_a_step_of_another_name_refused(tmp_path, options, said, code):
    command = [sys.executable, str(BENCHMARKS / "gpu_records.py"), str(tmp_path / "out"), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code
    assert said in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()
