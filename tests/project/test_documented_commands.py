"""Every command of the documentation is run, here or by the test that is named, and its arguments are understood."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest
import typer.main
from documented import FENCE, OURS, PROGRAMS, README, ROOT, code_of, falsify, trial

from conformance.catalogue import load_catalogue
from conformance.cli import app
from conformance.documentation.pages import CHECKS_PAGE, row_pages
from reference_engine.cli import parse as parse_apr

RUN_HERE = {
    "falsify engines",
    "falsify smoke",
    "falsify smoke --engine my-engine.toml",
    "falsify smoke --engine docs/examples/minimal.toml",
    "falsify run -k F-MEM-029",
    "python -m conformance.documentation",
    "python -m conformance.protocol.schemas docs/schemas",
}
RUN_IN_PIPELINE = {"nox -s tests", "nox -s lint", "nox -s types"}
RUN_ELSEWHERE = {
    "falsify matrix matrix.toml --ray auto": "tests/ray/test_ray_pool.py, by the address of its cluster",
    "falsify records falsify-matrix": "tests/reports/test_many_records.py",
    "falsify records falsify-matrix --by engine": "tests/reports/test_many_records.py",
    "falsify records falsify-matrix --search F-MEM-029": "tests/reports/test_many_records.py",
    "nox -s ray": "noxfile.py, where the extra may be installed",
    "falsify compare one/record.jsonl other": "tests/reports/test_compare.py",
    "falsify run --engine llama_cpp": "tests/conformance/engines/test_llama_cpp.py, where it is installed",
    "falsify compare one two --malformations page.html": "tests/reports/test_malformations.py",
    "falsify corpus export DIR": "tests/corpus/test_corpus_keep.py",
    "falsify run --engine docs/examples/rust/rust.toml --section parse": (
        "tests/conformance/engines/test_rust_example.py runs rows of it"
    ),
    "falsify smoke --engine docs/examples/rust/rust.toml": "tests/conformance/engines/test_rust_example.py",
    "falsify matrix matrix.toml": "tests/conformance/trial/test_matrix.py",
    "falsify matrix matrix.toml --cell 1": "tests/conformance/trial/test_matrix.py",
    "falsify matrix matrix.toml --collect": "tests/conformance/trial/test_matrix.py",
    "falsify run --shard 1/2 --out part-1": "tests/conformance/trial/test_merging.py, with another engine",
    "falsify run --shard 2/2 --out part-2": "tests/conformance/trial/test_merging.py, with another engine",
    "falsify merge part-1/latest part-2/latest": "tests/conformance/trial/test_merging.py",
    "falsify golden ./checkpoint": "tests/conformance/test_cli.py, on a copy of the random checkpoint",
    "python -m conformance.corpus.safetensors.format_page": "tests/corpus/test_format_page.py compares",
    "falsify gate falsify-run/latest --gate gate.toml": "tests/conformance/test_cli_records.py",
    "falsify gate falsify-run/latest --gate gate.toml --baseline main.jsonl": "tests/conformance/test_cli_records.py",
    "falsify run --gate gate.toml": "tests/conformance/gate/test_pull_request.py, whole trials",
    "falsify diff main.jsonl falsify-run/latest": "tests/conformance/test_cli_records.py",
    "falsify rejudge falsify-run/latest --thresholds stricter.toml": "tests/conformance/test_cli_records.py",
    "falsify history falsify-run --csv history.csv": "tests/conformance/test_cli_records.py",
    "falsify render falsify-run/latest": "tests/conformance/test_cli_records.py",
    "falsify render falsify-run/latest --baseline main.jsonl --history falsify-run": (
        "tests/conformance/test_cli_records.py"
    ),
    "falsify severity": "tests/faults, fault by fault; whole, it takes an hour",
    "nox -s severity": "takes an hour; it is `falsify severity`",
    "nox -s calibrate": "tests/conformance/calibration/test_calibrate_command.py, with a made pool",
    "falsify calibrate": "tests/conformance/calibration/test_calibrate_command.py, with a made pool",
    "falsify render RECORD --calibration FILE": "tests/conformance/calibration/test_calibrate_command.py",
    "nox -s mutation": "takes hours; tests/mutation/run.py is what it runs",
    "falsify run": "the trial itself, by `nox -s falsify`",
    "falsify run --engine my-engine.toml": "here with a selection; whole, it asks nothing more",
    "nox -s falsify": "the trial itself",
    'apr run conformance/corpus/fixture/model/model.safetensors "2+2=" --max-tokens 5 --gpu': "F-INT-097 is this",
    "apr chat conformance/corpus/fixture/model/model.safetensors --gpu --max-tokens 5": "F-INT-096 is this",
    "falsify done": "tests/conformance/done/test_gates.py, gate by gate; whole, it runs all tests",
    "falsify done --engine my-engine.toml": "tests/conformance/done/test_gates.py",
    "falsify gate RECORD --done done.json": "tests/conformance/test_cli_records.py",
    "falsify render RECORD --done done.json": "tests/conformance/test_cli_records.py",
    "nox -s done": "takes minutes; it is `falsify done`",
    "apr chat model.safetensors --gpu": "the specification's words; F-INT-096 is this",
    "falsify smoke --engine docs/examples/plain/plain.toml": "tests/project/test_walks.py",
    "falsify run --engine docs/examples/plain/plain.toml --section parse": "tests/project/test_walks.py",
    "nox -s docs": "tests/project/test_site.py builds the same",
    "nox -s bench": "tests/benchmarks/test_bench.py runs what it runs, on the CPU",
    "nox --no-venv -s falsify": "the trial itself, without an environment of its own",
    "nox -s falsify -- -k f_mem": "a part of the trial",
    "nox -s falsify -- --section mem": "a part of the trial",
    "nox -s falsify -- --model smollm2": "downloads once",
    "nox -s falsify -- --model ./checkpoint": "needs the reader's checkpoint",
    "nox -s falsify -- --engine my-engine.toml": "needs the reader's engine",
    "pip install nox": ".ci/run",
    "pip install -e .": "noxfile.py",
    'pip install -c constraints.txt -e ".[golden]" nox coverage jsonschema setuptools wheel ruff mypy pandas-stubs': (
        "noxfile.py installs the same"
    ),
    "python -m venv .venv": ".ci/run makes one in the same way",
    ". .venv/bin/activate": "a shell's own",
    'python -m pytest -m "not slow"': "a part of `nox -s tests`",
    "ruff check .": "`nox -s lint`",
    "ruff format --check .": "`nox -s lint`",
    "mypy": "`nox -s types`",
    "python -m conformance.corpus.fixture.train --out RUN": "minutes on a GPU; tests/corpus/test_fixture_training.py",
    "python -m conformance.corpus.fixture.freeze RUN": "after training; tests/corpus/test_fixture_training.py",
    "python -m conformance.corpus.fixture.golden": "tests/corpus/test_fixture_model.py",
    "python -m conformance.corpus.fixture.card": "tests/corpus/test_fixture_model.py",
}


# --- generated parts --------------------------------------------------------------------------------------


def commands():
    """Every command of every page: lines of shell blocks, and inline code that begins with a program of ours.

    The pages of checks and of traceability repeat the specification's commands, which the checks themselves run.
    """
    found = set()
    for page in set(OURS) - {ROOT / CHECKS_PAGE, ROOT / "docs" / "traceability.md", *row_pages()}:
        text = page.read_text()
        lines = [line for language, block in FENCE.findall(text) if language == "sh" for line in block.splitlines()]
        lines += [code for code in code_of(text) if code.startswith(PROGRAMS)]
        found |= {command.strip() for line in lines for command in line.split("&&") if command.strip()}
    return found


def test_every_command_is_run_by_a_test_or_listed_as_run_elsewhere():
    known = RUN_HERE | RUN_IN_PIPELINE | set(RUN_ELSEWHERE)
    assert commands() - known == set()
    assert known - commands() == set(), "listed here, on no page any more"


def test_what_is_said_to_run_a_command_elsewhere_exists():
    named = [name for where in RUN_ELSEWHERE.values() for name in re.findall(r"[\w./]+\.py|\.ci/run", where)]
    assert named
    assert all((ROOT / name).is_file() for name in named)


def test_commands_of_the_pipeline_are_in_it():
    pipeline = (ROOT / ".ci" / "run").read_text()
    lines = [shlex.split(line) for line in pipeline.splitlines() if line.startswith("nox ")]
    sessions = {session for line in lines for session in line[line.index("-s") + 1 :]}
    assert {command.removeprefix("nox -s ") for command in RUN_IN_PIPELINE} <= sessions
    assert "pip" in pipeline
    assert "install --quiet nox" in pipeline


def test_sessions_that_are_named_exist():
    tree = ast.parse((ROOT / "noxfile.py").read_text())
    sessions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list}
    for command in commands():
        words = shlex.split(command)
        if words[0] == "nox" and "-s" in words:
            assert words[words.index("-s") + 1] in sessions, command


def test_arguments_of_falsify_and_apr_are_understood():
    parsed = 0
    for command in commands():
        words = shlex.split(command)
        if words[0] == "nox":
            words = ["falsify", "run", *words[words.index("--") + 1 :]] if "--" in words else ["falsify", "run"]
        if words[0] == "falsify":
            parse(typer.main.get_command(app), words)
        elif words[0] == "apr":
            assert parse_apr(words[1:]).command == words[1]
        parsed += words[0] in {"falsify", "apr"}
    assert parsed > 5


def parse(program, words):
    assert words[1] in program.commands, words
    values = program.commands[words[1]].make_context(words[1], words[2:]).params
    load_catalogue().select(values.get("select") or (), values.get("section") or ())


def test_falsify_engines(tmp_path):
    done = falsify("engines", cwd=tmp_path)
    assert done.returncode == 0
    assert "\nreference\t" in f"\n{done.stdout}"


def test_falsify_smoke(tmp_path):
    done = falsify("smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_falsify_smoke_of_the_example(tmp_path):
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "docs" / "examples")
    done = falsify("smoke", "--engine", "docs/examples/minimal.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "ok    offers file: file.open: file_not_found" in done.stdout


def test_falsify_smoke_of_an_engine_of_ones_own(tmp_path):
    shutil.copyfile(ROOT / "docs" / "examples" / "minimal.toml", tmp_path / "my-engine.toml")
    shutil.copyfile(ROOT / "docs" / "examples" / "minimal_driver.py", tmp_path / "minimal_driver.py")
    assert falsify("smoke", "--engine", "my-engine.toml", cwd=tmp_path).returncode == 0
    (tmp_path / "minimal_driver.py").unlink()
    missing = falsify("smoke", "--engine", "my-engine.toml", cwd=tmp_path)
    assert missing.returncode == 1
    assert "FAIL  starts and initialises" in missing.stdout


@pytest.mark.slow
def test_falsify_run_of_one_row_leaves_a_record_that_the_shown_code_reads(tmp_path):
    trial(tmp_path, "-k", "F-MEM-029")
    [shown] = [
        text for language, text in FENCE.findall((ROOT / "docs" / "record.md").read_text()) if language == "python"
    ]
    assert "'CORROBORATED':" in python("-c", shown, cwd=tmp_path, path=ROOT)


@pytest.mark.slow
def test_the_generating_commands_mend_what_is_stale(tmp_path):
    for name in filter(None, output("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")):
        if (ROOT / name).is_file() and not name.endswith((".npz", ".safetensors")):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tmp_path / name)
    (tmp_path / "docs" / "checks.md").unlink()
    (tmp_path / "README.md").write_text(README.read_text().replace("It is not a pass.", "It is a pass."))
    (tmp_path / "docs" / "schemas" / "record.json").write_text("{}")

    told = python("-m", "conformance.documentation", cwd=tmp_path, path=tmp_path)
    python("-m", "conformance.protocol.schemas", "docs/schemas", cwd=tmp_path, path=tmp_path)

    assert told.split() == ["README.md", "docs/checks.md"]
    for name in ("README.md", "docs/checks.md", "docs/schemas/record.json", "docs/schemas/protocol.json"):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text()


def output(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout


def python(*words, cwd, path):
    environment = os.environ | {"PYTHONPATH": str(path)}
    command = [sys.executable, *words]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout
