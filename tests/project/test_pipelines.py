"""The GitHub Action and the GitLab template: their steps run in a shell and end with the code of the gate."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
GITLAB = yaml.safe_load((ROOT / "ci" / "gitlab.yml").read_text())
WORKFLOW = yaml.safe_load((ROOT / "docs" / "examples" / "github-workflow.yml").read_text())
HARNESS = """#!{python}
import sys
from pathlib import Path
words = sys.argv[3:]  # after -m conformance
Path("calls").open("a").write(" ".join(words) + "\\n")
codes = dict(part.split("=") for part in {codes!r}.split())
if words[0] == "run":
    directory = Path("falsify-run/20261124")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "summary.md").write_text("## the headline\\n")
    if codes.get("run") not in ("2",):
        Path("falsify-run/latest").symlink_to("20261124")
sys.exit(int(codes.get(words[0], 0)))
"""


@pytest.fixture
def harness(tmp_path):
    """A stand-in that notes how it is called and ends with the codes it is given."""

    def make(codes):
        program = tmp_path / "python"
        program.write_text(HARNESS.format(python=sys.executable, codes=codes))
        program.chmod(0o755)
        return program

    return make


def evaluated(text, inputs, outputs):
    def value(match):
        scope, name = match[1], match[2]
        return inputs[name] if scope == "inputs" else outputs[name.rsplit(".", 1)[-1]]

    return re.sub(r"\$\{\{ (inputs|steps)\.([\w.-]+) \}\}", value, text)


def run_action(directory, program, **given):
    inputs = {name: str(each.get("default", "")) for name, each in ACTION["inputs"].items()}
    inputs |= {name.replace("_", "-"): value for name, value in given.items()} | {"python": str(program)}
    files = {name: directory / name for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    for step in ACTION["runs"]["steps"]:
        for file in files.values():
            file.touch()
        outputs = dict(line.split("=", 1) for line in files["GITHUB_OUTPUT"].read_text().splitlines())
        settings = {name: evaluated(text, inputs, outputs) for name, text in step["env"].items()}
        settings |= {name: str(path) for name, path in files.items()}
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=directory, env=os.environ | settings, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        if done.returncode:
            return done
    return done


def calls(directory):
    return (directory / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    ("codes", "code", "commands"),
    [
        ("", 0, ["run", "render", "gate"]),
        ("run=3", 0, ["run", "render", "gate"]),
        ("run=1 gate=1", 1, ["run", "render", "gate"]),
        ("run=3 gate=3", 3, ["run", "render", "gate"]),
        ("gate=2", 2, ["run", "render", "gate"]),
        ("render=2", 2, ["run", "render"]),
        ("run=2", 2, ["run"]),
        ("run=4", 4, ["run"]),
        ("run=137", 137, ["run"]),
    ],
)
def test_the_action_ends_with_the_gates_code_and_never_hides_a_broken_trial(tmp_path, harness, codes, code, commands):
    done = run_action(tmp_path, harness(codes))

    assert done.returncode == code, done.stderr
    assert [call.split()[0] for call in calls(tmp_path)] == commands


def test_the_action_hands_on_its_inputs_and_the_summary(tmp_path, harness):
    run_action(tmp_path, harness(""), engine="a b.toml", gate="gate.toml", baseline="main.jsonl", require_gpu="true")

    run, render, gate = calls(tmp_path)
    assert run == "run --engine a b.toml --out falsify-run --workers 2 --require-gpu"
    assert render.endswith("falsify-run/20261124 --gate gate.toml --baseline main.jsonl")
    assert gate.endswith("--gate gate.toml --baseline main.jsonl --annotate")
    assert (tmp_path / "GITHUB_STEP_SUMMARY").read_text() == "## the headline\n"


def test_no_input_reaches_a_shell_as_code(tmp_path, harness):
    run_action(tmp_path, harness(""), engine='"; touch pwned; "$(touch pwned)', gate="`touch pwned`")

    assert not (tmp_path / "pwned").exists()
    assert all("${{" not in step["run"] for step in ACTION["runs"]["steps"])


def test_a_record_of_an_earlier_run_is_not_taken_for_this_one(tmp_path, harness):
    run_action(tmp_path, harness(""))

    done = run_action(tmp_path, harness("run=2"))

    assert done.returncode == 2


def run_gitlab(directory, program, **given):
    job = GITLAB[".falsify"]
    path = f"{program.parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", "set -eo pipefail\n" + "\n".join(job["script"])],
        cwd=directory, env=os.environ | job["variables"] | given | {"PATH": path}, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(("codes", "code"), [("", 0), ("run=3", 0), ("run=1 gate=1", 1), ("gate=3", 3), ("run=4", 4)])
def test_the_gitlab_job_ends_with_the_gates_code(tmp_path, harness, codes, code):
    done = run_gitlab(tmp_path, harness(codes), FALSIFY_GATE="gate.toml")

    assert done.returncode == code, done.stderr
    if code != 4:
        assert calls(tmp_path)[-1] == "gate falsify-run/latest --gate gate.toml"


def test_the_gpu_jobs_do_not_rehearse(tmp_path, harness):
    run_gitlab(tmp_path, harness(""), **GITLAB["falsify-trial"]["variables"])

    assert "--require-gpu" in calls(tmp_path)[0]
    trial = WORKFLOW["jobs"]["trial"]["steps"]
    assert [s["with"]["require-gpu"] for s in trial if s.get("uses") == "./"] == ["true"]


def test_the_worked_example_gives_the_action_only_inputs_that_it_has():
    uses = [s for job in WORKFLOW["jobs"].values() for s in job["steps"] if s.get("uses") == "./"]

    assert len(uses) == 2
    assert all(set(step["with"]) <= set(ACTION["inputs"]) for step in uses)


@pytest.mark.slow
def test_the_action_with_a_real_trial(tmp_path):
    """A foreign engine that reads files only, without a gate file: the real commands, the real code."""
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} OMP_NUM_THREADS=1 exec {sys.executable} "$@"\n')
    program.chmod(0o755)

    done = run_action(tmp_path, program, engine=str(ROOT / "docs" / "examples" / "minimal.toml"))

    assert done.returncode == 1, done.stdout + done.stderr
    assert "Gate SHUT: falsified (exit code 1)." in done.stdout
    assert "::error title=F-PARSE-0" in done.stdout
    assert (tmp_path / "GITHUB_STEP_SUMMARY").read_text().startswith("## REHEARSAL on the CPU")
    directory = Path((tmp_path / "GITHUB_OUTPUT").read_text().strip().split("=", 1)[1])
    assert (directory / "scorecard.html").is_file()
