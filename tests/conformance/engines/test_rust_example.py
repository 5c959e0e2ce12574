"""The example driver in Rust, judged as any other engine: by `falsify smoke` and by rows of a trial."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.manifest import load_manifest
from conformance.record import read_record
from conformance.smoke import smoke
from conformance.trial.launching import launch_in
from conformance.verdicts import Verdict

MANIFEST = Path(__file__).parents[3] / "docs" / "examples" / "rust" / "rust.toml"
pytestmark = pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not on this machine's PATH")


def test_it_passes_smoke(tmp_path):
    steps = smoke(launch_in(load_manifest(str(MANIFEST)), tmp_path / "exchange"))

    assert [step for step in steps if not step.ok] == []


@pytest.mark.slow
def test_it_survives_parsing(tmp_path):
    rows = ("F-PARSE-038", "F-PARSE-041", "F-PARSE-042", "F-PARSE-044", "F-PARSE-045", "F-BUILD-008")
    chosen = [word for row in rows for word in ("-k", row)]
    command = [sys.executable, "-m", "conformance", "run", "--engine", str(MANIFEST), *chosen, "-n", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True, check=False, timeout=300)
    record = read_record(tmp_path / "latest" / "record.jsonl")

    verdicts = {row.id: row.verdict for row in record.rows if row.id in rows}
    assert verdicts == dict.fromkeys(rows, Verdict.CORROBORATED), done.stdout
