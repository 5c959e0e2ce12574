"""The definition of done: a gate is met by a number and by nothing else."""

import stat
import sys
from pathlib import Path

import msgspec
import pytest
from typer.testing import CliRunner

from conformance.cli import app
from conformance.documentation.pages import ROOT, SPECIFICATION
from conformance.done.gates import DoneLine, Measurement, Standing, exit_code, judge_gate, load_gates
from conformance.done.measuring import read
from conformance.manifest import GateTable, load_manifest
from conformance.sources.workshop import Ran
from conformance.verdicts import ExitCode

GATES = {gate.key: gate for gate in load_gates()}


def test_every_gate_has_the_specifications_own_words_and_its_threshold():
    text = (ROOT / SPECIFICATION).read_text()
    assert len(GATES) == 13
    for gate in GATES.values():
        assert gate.says in text, gate.key
        if gate.says.startswith("|") and gate.clause == "8.1":
            assert f"{gate.threshold:g}" in gate.says
    assert [gate.key for gate in GATES.values() if gate.enforcement == "warning"] == ["mutation"]


@pytest.mark.parametrize(
    ("key", "value", "standing"),
    [
        ("coverage", 95.0, "met"),
        ("coverage", 94.99, "not met"),
        ("lint", 0, "met"),
        ("lint", 1, "not met"),
        ("mutation", 80, "met"),
        ("mutation", 79.9, "warning"),
        ("throughput", 100, "not met"),
        ("throughput", 100.1, "met"),
        ("coverage", float("nan"), "not met"),
    ],
)
def test_a_number_is_held_against_the_threshold(key, value, standing):
    assert judge_gate(GATES[key], "python", Measurement("x", value)).verdict == standing


def test_without_a_number_no_gate_is_met():
    assert judge_gate(GATES["lint"], "python", Measurement("x", reason="not installed")).verdict is Standing.UNTESTED
    line = judge_gate(GATES["lint"], "python", None)
    assert (line.verdict, line.reason) == (Standing.UNTESTED, "the manifest has no [done.lint] table")


def test_a_number_of_a_command_that_failed_meets_nothing():
    line = judge_gate(GATES["coverage"], "python", Measurement("x", 99.0, failed="exit status 1: 3 failed"))
    assert (line.verdict, line.reason) == (Standing.NOT_MET, "the command failed: exit status 1: 3 failed")


def test_a_gate_of_another_language_is_not_asked():
    assert judge_gate(GATES["tdg"], "python", None).verdict is Standing.NOT_ASKED
    assert judge_gate(GATES["tdg"], "rust", None).verdict is Standing.UNTESTED


@pytest.mark.parametrize(
    ("standings", "code"),
    [
        (["met", "not asked", "warning"], ExitCode.OPEN),
        (["met", "untested"], ExitCode.UNDECIDED),
        (["untested", "not met"], ExitCode.FALSIFIED),
        (["not asked"], ExitCode.UNDECIDED),
        ([], ExitCode.UNDECIDED),
    ],
)
def test_the_exit_code_is_open_only_if_something_was_asked_and_all_of_it_is_met(standings, code):
    assert exit_code([DoneLine("x", verdict=Standing(word)) for word in standings]) is code


@pytest.mark.parametrize(
    ("table", "status", "output", "value"),
    [
        ({"value": r"cover (?P<value>[\d.]+)"}, 0, "cover 12\ncover 96.94 %", 96.94),
        ({"value": r"(?P<value>[\d,]+) points"}, 0, "1,234 points", 1234),
        ({"value": r"(?P<rest>\d+) missed, (?P<part>\d+) caught"}, 2, "14 tested: 2 missed, 8 caught", 80),
        ({"value": r"(?P<rest>\d+) missed, (?P<part>\d+) caught"}, 0, "0 missed, 0 caught", None),
        ({"value": r"(?P<value>\S+) points"}, 0, "many points", None),
        ({"value": r"(?P<value>\d+) points"}, 0, "no such thing", None),
        ({"count": r"^\S+:\d+: "}, 1, "a.py:1: x\nb.py:2: y\n", 2),
        ({"count": r"^\S+:\d+: "}, 0, "", 0),
        ({"count": r"^\S+:\d+: "}, 127, "no such command", None),
        ({"value": r"(?P<value>\d+)"}, None, "cannot start: no such file", None),
        ({}, 0, "anything", None),
    ],
)
def test_one_number_is_read_out_of_what_a_command_says(table, status, output, value):
    found = read(GateTable(command=["tool"], **table), Ran(["tool"], status, output))
    assert found.value == value
    assert found.reason or value == 0, "a reader sees why there is no number, or where it was read"
    assert bool(found.failed) is (value is not None and status != 0 and "value" in table)


def manifest(directory, text):
    path = directory / "my-engine.toml"
    path.write_text(f'[engine]\nname = "mine"\nlanguage = "rust"\n{text}')
    return path


def run(*words):
    return CliRunner().invoke(app, ["done", *words])


def test_a_rust_engine_is_measured_by_the_specifications_literal_commands(tmp_path, monkeypatch):
    tools = tmp_path / "bin"
    tools.mkdir()
    said = {
        "make": "TOTAL   2000   60   97.00%",
        "pmat": "Overall Score: 96.1/100 (A+)\nScore: 125.0/134\nFound 0 SATD violations",
        "cargo": "error: unused variable\nerror: could not compile\n14 mutants tested: 2 missed, 12 caught",
    }
    for name, words in said.items():
        tool = tools / name
        tool.write_text(f"#!{sys.executable}\nprint({words!r})\n")
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}")
    page = (ROOT / "docs" / "manifest.md").read_text()
    [shown] = [block for block in page.split("```") if block.startswith("toml\n") and "[done" in block]
    (tmp_path / "my-engine.toml").write_text(shown.removeprefix("toml\n"))
    monkeypatch.chdir(tmp_path)

    ended = run("--engine", "my-engine.toml")

    written = msgspec.json.decode(Path("falsify-done/done.json").read_bytes(), type=list[DoneLine])
    lines = {line.key: line for line in written}
    assert {key: line.value for key, line in lines.items() if line.value is not None} == {
        "coverage": 97, "tdg": 125, "rust_project_score": 125, "lint": 1, "satd": 0,
        "mutation": pytest.approx(85.7, abs=0.1),
    }  # fmt: skip
    assert lines["lint"].verdict is Standing.NOT_MET
    assert lines["rows"].verdict is Standing.UNTESTED
    assert ended.exit_code == ExitCode.FALSIFIED
    commands = {line.command for line in lines.values() if line.command}
    assert commands == {"make coverage", "pmat tdg .", "pmat rust-project-score", "cargo clippy -- -D warnings",
                        "pmat analyze satd", "cargo mutants"}  # fmt: skip


def test_a_tool_that_is_not_installed_leaves_its_gate_untested(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = manifest(tmp_path, '[done.tdg]\ncommand = ["pmat-is-not-here", "tdg"]\nvalue = "(?P<value>.+)"\n')
    ended = run("--engine", str(path), "--gate", "tdg")
    assert ended.exit_code == ExitCode.UNDECIDED
    assert "UNTESTED   TDG score: cannot start" in ended.output


def test_gates_that_are_not_chosen_are_untested_and_do_not_decide(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = f"command = [{sys.executable!r}, '-c', 'print(96)']"
    path = manifest(tmp_path, f'[done.tdg]\n{command}\nvalue = "(?P<value>.+)"\n')
    assert run("--engine", str(path), "--gate", "tdg").exit_code == ExitCode.OPEN
    lines = msgspec.json.decode(Path("falsify-done/done.json").read_bytes(), type=list[DoneLine])
    assert [line.key for line in lines] == list(GATES)
    assert {line.reason for line in lines if line.key != "tdg"} == {"not selected"}
    assert {line.verdict for line in lines if line.key != "tdg"} == {Standing.UNTESTED}


def test_a_misspelt_gate_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("--gate", "coverge").exit_code == ExitCode.USAGE
    path = manifest(tmp_path, '[done.tgd]\ncommand = ["true"]\n')
    assert run("--engine", str(path)).exit_code == ExitCode.USAGE


def test_every_gate_that_is_asked_of_the_reference_engine_has_a_command():
    reference = load_manifest("reference").manifest
    assert set(reference.done) == {key for key, gate in GATES.items() if gate.asks("python")}
    assert all(bool(table.value) is not bool(table.count) for table in reference.done.values())
