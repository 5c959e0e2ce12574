"""Manifest templates of Rust engines with the specification's own commands, tried on a small crate."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.manifest import load_manifest
from conformance.record import read_record
from conformance.verdicts import Rehearsed, Verdict

ROOT = Path(__file__).parents[3]
TEMPLATES = sorted((ROOT / "docs" / "examples" / "manifests").glob("*.toml"))
ROWS = ("F-BUILD-001", "F-BUILD-007", "F-BUILD-008", "F-BUILD-009", "F-BUILD-010")
CARGO = '[package]\nname = "small"\nversion = "0.1.0"\nedition = "2021"\n\n[features]\ncuda = []\n'
GOOD = """//! A small crate.

/// The first byte.
pub fn first(bytes: &[u8]) -> u8 {
    // SAFETY: callers give at least one byte.
    unsafe { *bytes.as_ptr() }
}
"""
TEST = "#[test]\nfn the_first_byte() {\n    assert_eq!(small::first(&[7, 8]), 7);\n}\n"
slow_with_cargo = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cargo") is None, reason="cargo is not on this machine's PATH"),
]


def tried(tmp_path, template, source):
    crate = tmp_path / "crate"
    (crate / "src").mkdir(parents=True)
    (crate / "tests").mkdir()
    (crate / "Cargo.toml").write_text(CARGO)
    (crate / "src" / "lib.rs").write_text(source)
    (crate / "tests" / "test_small.rs").write_text(TEST)
    shutil.copyfile(template, crate / "engine.toml")
    command = [sys.executable, "-m", "conformance", "run", "--engine", str(crate / "engine.toml"), "-n", "1"]
    command += ["--model", "random", "--out", str(tmp_path / "out"), *(f"-k{row}" for row in ROWS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    record = tmp_path / "out" / "latest" / "record.jsonl"
    assert record.is_file(), done.stderr
    return {row.id: row for row in read_record(record).rows if row.id in ROWS}


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
def test_a_template_has_the_commands_of_the_specification(template):
    manifest = load_manifest(str(template)).manifest

    assert manifest.build.command == ["cargo", "build", "--features", "cuda"]
    assert manifest.lint.command[:3] == ["cargo", "clippy", "--features"]
    assert manifest.tests.command == ["cargo", "test", "--features", "cuda", "--no-run"]
    assert manifest.source.language == "rust"


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.stem)
class TestOnASmallCrate:
    pytestmark = slow_with_cargo

    def test_a_right_crate_survives_what_can_be_tried(self, template, tmp_path):
        rows = tried(tmp_path, template, GOOD)

        assert {row.id: row.verdict for row in rows.values()} == {
            "F-BUILD-001": Verdict.UNTESTED,
            "F-BUILD-007": Verdict.CORROBORATED,
            "F-BUILD-008": Verdict.CORROBORATED,
            "F-BUILD-009": Verdict.CORROBORATED,
            "F-BUILD-010": Verdict.UNTESTED,
        }, rows
        assert "it is built" in rows["F-BUILD-001"].reason
        assert "public items are found by Python's syntax" in rows["F-BUILD-010"].reason

    def test_a_wrong_crate_is_falsified_row_by_row(self, template, tmp_path):
        wrong = GOOD.replace("    // SAFETY: callers give at least one byte.\n", "    let unused = 1;\n")
        rows = tried(tmp_path, template, wrong.replace("The first byte.", "See [`NoSuchThing`]."))

        assert rows["F-BUILD-008"].verdict is Verdict.FALSIFIED
        assert rows["F-BUILD-009"].verdict is Verdict.FALSIFIED
        assert rows["F-BUILD-010"].verdict is Verdict.FALSIFIED

    def test_a_crate_that_does_not_compile_is_falsified(self, template, tmp_path):
        rows = tried(tmp_path, template, "pub fn first(\n")

        assert rows["F-BUILD-001"].rehearsed is Rehearsed.FAILED
        assert rows["F-BUILD-007"].verdict is Verdict.FALSIFIED
