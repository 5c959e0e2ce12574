"""A pull request that breaks the engine is blocked; a failure that is known is let through, for as long as it may."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from conformance.cli import app
from conformance.record import read_record, record_file, write_record
from conformance.verdicts import ExitCode, Verdict

ROOT = Path(__file__).parents[3]
DRIVER = ROOT / "tests" / "engines" / "file_only.py"

pytestmark = pytest.mark.slow


def gate(*words):
    return CliRunner().invoke(app, ["gate", *map(str, words)])


class Trial:
    """A whole trial of an engine that only reads files, in a process of its own."""

    def __init__(self, directory, fault, *words):
        self.directory = directory / fault
        self.directory.mkdir()
        manifest = self.directory / "engine.toml"
        manifest.write_text(f'[engine]\nname = "mine"\n[driver]\ncommand = ["{{python}}", "{DRIVER}", "{fault}"]\n')
        command = [sys.executable, "-m", "conformance", "run", "--engine", manifest, "--out", self.directory, *words]
        # No row of this engine is timed: with locks of its own no trial waits for the host.
        alone = self.directory / "tmp"
        alone.mkdir()
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(alone)}
        self.process = subprocess.Popen(
            command, cwd=self.directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def wait(self):
        """What it printed, the code it ended with, and its record."""
        printed, _ = self.process.communicate(timeout=900)
        return printed, self.process.returncode, read_record(record_file(self.directory / "latest"))


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
def trials(tmp_path_factory):
    """The engine of the main branch and that of the pull request, tried side by side."""
    directory = tmp_path_factory.mktemp("trials")
    demanding = directory / "demanding.toml"
    demanding.write_text('required = ["F-PARSE-040"]\n')
    running = [Trial(directory, "Healthy"), Trial(directory, "HeaderOrder", "--gate", demanding)]
    try:
        return [trial.wait() for trial in running]
    finally:
        for trial in running:
            trial.process.kill()
            trial.process.wait()


@pytest.fixture(scope="module")
def main(trials):
    return trials[0]


@pytest.fixture(scope="module")
def pull_request(trials):
    return trials[1]


@pytest.fixture
def stored(main, pull_request, tmp_path, monkeypatch):
    """Both records as files, and a gate file that names what the engine does not offer."""
    monkeypatch.chdir(tmp_path)
    for name, (_, _, record) in (("main", main), ("pull", pull_request)):
        write_record(record, Path(f"{name}.jsonl"))
    Path("gate.toml").write_text(entries(main[2]))


def test_the_healthy_engine_passes_with_what_it_does_not_offer_named(main, stored):
    assert main[1] == ExitCode.UNDECIDED

    passed = gate("main.jsonl", "--gate", "gate.toml")

    assert passed.exit_code == ExitCode.OPEN, passed.output
    assert passed.output.startswith("Gate OPEN (exit code 0).")
    assert "nothing was shown about the GPU" in passed.output


def test_a_planted_fault_is_blocked(pull_request, stored):
    printed, code, record = pull_request
    failed = [row.id for row in record.rows if row.verdict is Verdict.FALSIFIED]

    assert code == ExitCode.FALSIFIED
    assert "F-PARSE-040" in failed
    assert "Gate SHUT: falsified (exit code 1)." in printed

    told = gate("pull.jsonl", "--baseline", "main.jsonl", "--gate", "gate.toml", "--annotate")
    assert told.exit_code == ExitCode.FALSIFIED
    assert f"{len(failed)} new failure" in told.output
    assert [row for row in failed if f"::error title={row}::" in told.output] == failed


@pytest.mark.parametrize(
    ("expires", "fault", "code"),
    [
        ("2999-12-31", "pull", ExitCode.OPEN),
        ("2026-01-01", "pull", ExitCode.FALSIFIED),
        ("2999-12-31", "main", ExitCode.USAGE),
    ],
)
def test_a_known_failure_is_let_through_until_it_expires_or_is_mended(main, pull_request, stored, expires, fault, code):
    record = pull_request[2]
    failing = {row.id for row in record.rows if row.verdict is Verdict.FALSIFIED}
    Path("known.toml").write_text(f"{entries(main[2], failing)}\n{known(record, expires)}")

    done = gate(f"{fault}.jsonl", "--gate", "known.toml")

    assert done.exit_code == code, done.output
    if code is ExitCode.OPEN:
        assert "known until 2999-12-31: offsets are being rewritten (https://example.org/issues/12)" in done.output
