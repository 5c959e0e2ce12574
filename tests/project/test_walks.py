"""The pages that lead someone through lead there: the engine that was written from them fares as they say."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from conformance.documentation.pages import ROOT
from conformance.record import read_record

PLAIN = ROOT / "docs" / "examples" / "plain"


def falsify(*words, cwd):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "conformance", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_the_engine_of_the_walk_uses_nothing_of_the_project_and_passes_smoke(tmp_path):
    driver = (PLAIN / "plain_driver.py").read_text()
    imported = set(re.findall(r"^(?:import|from) (\w+)", driver, re.MULTILINE))
    assert imported <= set(sys.stdlib_module_names)
    shutil.copytree(PLAIN, tmp_path / "docs" / "examples" / "plain")
    done = falsify("smoke", "--engine", "docs/examples/plain/plain.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout


@pytest.mark.slow
def test_the_first_verdicts_are_those_of_the_page(tmp_path):
    shutil.copytree(PLAIN, tmp_path / "docs" / "examples" / "plain")
    words = ("run", "--engine", "docs/examples/plain/plain.toml", "--section", "parse")
    done = falsify(*words, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    record = read_record(tmp_path / "falsify-run" / "latest" / "record.jsonl")
    fared = {row.id: row.verdict.value for row in record.rows if row.reason != "not selected"}
    page = (ROOT / "docs" / "trial.md").read_text()
    assert fared == dict(re.findall(r"^\| (F-PARSE-\d+) \| (\w+) \|", page, re.MULTILINE))
