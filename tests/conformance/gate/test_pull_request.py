"""A pull request that breaks the engine is blocked; a failure that is known is let through, for as long as it may."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.record import read_record, record_file
from conformance.verdicts import ExitCode, Verdict

ROOT = Path(__file__).parents[3]
DRIVER = ROOT / "tests" / "engines" / "file_only.py"

pytestmark = pytest.mark.slow


def falsify(*words, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "conformance", *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=400, check=False)


def trial(directory, fault, *words):
    directory.mkdir()
    manifest = directory / "engine.toml"
    manifest.write_text(f'[engine]\nname = "mine"\n[driver]\ncommand = ["{{python}}", "{DRIVER}", "{fault}"]\n')
    done = falsify("run", "--engine", manifest, "--out", directory / "runs", *words, cwd=directory)
    return done, read_record(record_file(directory / "runs" / "latest"))


def entries(record, without=()):
    """A gate file that allows the rows that the engine does not offer, for exactly the reasons that stand there."""
    rows = [row for row in record.rows if row.verdict is Verdict.UNTESTED and row.reason != "no CUDA device"]
    rows = [row for row in rows if row.id not in without]
    lines = (f'row = "{r.id}"\nreason = {json.dumps(r.reason)}\nwhy = "this engine only reads files"' for r in rows)
    return "\n".join(f"[[untested]]\n{line}" for line in lines)


def known(record, expires):
    rows = [row for row in record.rows if row.verdict is Verdict.FALSIFIED]
    names = {r.id: sorted({f.name.split("/")[0] for f in r.findings if f.verdict is Verdict.FALSIFIED}) for r in rows}
    return "\n".join(
        f'[[known_failure]]\nrow = "{row}"\nobservations = {json.dumps(failing)}\n'
        f'reason = "offsets are being rewritten"\n'
        f'issue = "https://example.org/issues/12"\nexpires = {expires}'
        for row, failing in names.items()
    )


@pytest.fixture(scope="module")
def main(tmp_path_factory):
    return trial(tmp_path_factory.mktemp("main") / "trial", "Healthy")


@pytest.fixture(scope="module")
def gate_file(main, tmp_path_factory):
    path = tmp_path_factory.mktemp("gate") / "gate.toml"
    path.write_text(entries(main[1]))
    return path


@pytest.fixture(scope="module")
def pull_request(gate_file, tmp_path_factory):
    return trial(tmp_path_factory.mktemp("pull") / "trial", "HeaderOrder", "--gate", gate_file)


def test_the_healthy_engine_passes_with_what_it_does_not_offer_named(main, gate_file, tmp_path):
    done, record = main

    assert done.returncode == ExitCode.UNDECIDED
    stored = record_file(tmp_path)
    stored.write_bytes(b"".join(_lines(record)))
    passed = falsify("gate", stored, "--gate", gate_file, cwd=tmp_path)
    assert passed.returncode == ExitCode.OPEN, passed.stdout + passed.stderr
    assert passed.stdout.startswith("Gate OPEN (exit code 0).")
    assert "nothing was shown about the GPU" in passed.stdout


def test_a_planted_fault_is_blocked(main, gate_file, pull_request, tmp_path):
    done, record = pull_request
    failed = [row.id for row in record.rows if row.verdict is Verdict.FALSIFIED]

    assert done.returncode == ExitCode.FALSIFIED
    assert "F-PARSE-040" in failed
    assert "Gate SHUT: falsified (exit code 1)." in done.stdout

    for name, each in (("main", main[1]), ("pull", record)):
        (tmp_path / f"{name}.jsonl").write_bytes(b"".join(_lines(each)))
    told = falsify("gate", "pull.jsonl", "--baseline", "main.jsonl", "--gate", gate_file, "--annotate", cwd=tmp_path)
    assert told.returncode == ExitCode.FALSIFIED
    assert f"{len(failed)} new failure" in told.stdout
    assert [row for row in failed if f"::error title={row}::" in told.stdout] == failed


@pytest.mark.parametrize(
    ("expires", "fault", "code"),
    [
        ("2999-12-31", "pull", ExitCode.OPEN),
        ("2026-01-01", "pull", ExitCode.FALSIFIED),
        ("2999-12-31", "main", ExitCode.USAGE),
    ],
)
def test_a_known_failure_is_let_through_until_it_expires_or_is_mended(
    main, pull_request, tmp_path, expires, fault, code
):
    record = {"main": main[1], "pull": pull_request[1]}[fault]
    (tmp_path / "record.jsonl").write_bytes(b"".join(_lines(record)))
    failing = {row.id for row in pull_request[1].rows if row.verdict is Verdict.FALSIFIED}
    (tmp_path / "gate.toml").write_text(f"{entries(main[1], failing)}\n{known(pull_request[1], expires)}")

    done = falsify("gate", "record.jsonl", "--gate", "gate.toml", cwd=tmp_path)

    assert done.returncode == code, done.stdout + done.stderr
    if code is ExitCode.OPEN:
        assert "known until 2999-12-31: offsets are being rewritten (https://example.org/issues/12)" in done.stdout


def _lines(record):
    from conformance.record import encode_line

    return [encode_line(line) for line in (record.header, *record.rows, record.footer)]
