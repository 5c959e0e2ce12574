"""Rows of sections IV and V can be failed: each by an engine with one thing broken, and by how it is broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from control_stands import trial_of

from conformance.catalogue import load_catalogue
from conformance.corpus.safetensors.core import CORE, tried_on
from conformance.corpus.safetensors.keep import load
from conformance.corpus.safetensors.registry import CLASSES
from conformance.observations import Cases
from conformance.verdicts import Verdict

TESTS = Path(__file__).parents[1]
BROKEN = TESTS / "engines" / "broken.py"
PARSERS = TESTS / "corpus" / "corpus_engine.py"

# engine → row → the observation that shows it, and how a file was got wrong ("" where it is no file of a class)
KILLS = {
    "HeaderOrder": {"F-PARSE-036": ("files", "misread")},
    "OnlyAlignedHeaders": {"F-PARSE-037": ("files", "wrong_reject")},
    "ShortNames": {"F-PARSE-038": ("files", "misread")},
    "FoldedNames": {"F-PARSE-038": ("files", "misread")},
    "ScalarsAreVectors": {"F-PARSE-039": ("files", "misread")},
    "HalfForHalf": {
        "F-PARSE-040": ("files", "misread"),
        "F-DTYPE-047": ("product", ""),
        "F-DTYPE-048": ("product", ""),
        "F-DTYPE-052": ("wrong", ""),
        "F-DTYPE-053": ("wrong", ""),
    },
    "AcceptsHoles": {"F-PARSE-041": ("files", "wrong_accept")},
    "Aborts": {"F-PARSE-041": ("files", "crash")},
    "BlanksForNul": {"F-PARSE-042": ("files", "wrong_accept")},
    "ZeroFilled": {"F-PARSE-043": ("files", "wrong_accept")},
    "OpensAnything": {"F-PARSE-044": ("files", "wrong_accept")},
    "DropsMetadata": {"F-PARSE-045": ("files", "misread")},
    "Scrubs": {"F-DTYPE-046": ("same_bytes", ""), "F-DTYPE-054": ("same_bytes", "")},
    "SkipsForeignDtypes": {"F-DTYPE-049": ("explicit", ""), "F-DTYPE-050": ("explicit", "")},
    "LeavesHalf": {"F-DTYPE-049": ("nothing_left", ""), "F-DTYPE-050": ("nothing_left", "")},
    "OneItemSize": {"F-DTYPE-051": ("same_bytes", "")},
    "Clamps": {"F-DTYPE-055": ("same_bytes", "")},
}


def manifest(directory, script, *arguments):
    words = ", ".join(f'"{word}"' for word in ("{python}", str(script), *arguments))
    path = directory / "engine.toml"
    path.write_text(f'[engine]\nname = "broken"\n\n[driver]\ncommand = [{words}]\n')
    return path


def falsify(*arguments):
    command = [sys.executable, "-m", "conformance", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=400, check=False, env=dict(os.environ))


def tried(directory, script, argument, rows):
    """The record of a trial of these rows, and its directory."""
    return trial_of(manifest(directory, script, argument), rows, directory)


def test_every_row_has_an_engine_that_it_kills():
    killed = {row for rows in KILLS.values() for row in rows}
    assert killed == {row.id for row in load_catalogue().select([], ["parse", "dtype"])}


@pytest.mark.slow
@pytest.mark.parametrize("engine", KILLS)
def test_broken_engine_is_falsified_by_what_is_broken(engine, tmp_path):
    found, run_dir = tried(tmp_path, BROKEN, engine, KILLS[engine])
    for row_id, (observation, how) in KILLS[engine].items():
        row = found[row_id]
        assert row.verdict is Verdict.FALSIFIED, row.reason
        names = {one.name.split("/")[0] for one in row.findings if one.verdict is Verdict.FALSIFIED}
        assert observation in names, row.findings
        if how:
            failures = [f for one in row.observations if isinstance(one, Cases) for f in one.failures]
            assert how in {failure.how for failure in failures}
            for failure in failures:
                kept, data, _ = load(run_dir / "evidence" / row_id / failure.file)
                assert kept.how == failure.how
                assert len(data) < 2000
            attached = {Path(evidence.path).name for evidence in row.evidence}
            assert {failure.file for failure in failures} <= attached


@pytest.mark.slow
def test_healthy_engine_survives_both_sections(tmp_path):
    rows = [row.id for row in load_catalogue().select([], ["parse", "dtype"])]
    found, _ = tried(tmp_path, BROKEN, "Healthy", rows)
    assert {found[row].verdict for row in rows} == {Verdict.CORROBORATED}, [found[row].reason for row in rows]


@pytest.mark.slow
def test_unclear_errors_are_only_hardening(tmp_path):
    found, _ = tried(tmp_path, PARSERS, "Vague", ["F-PARSE-041"])
    assert found["F-PARSE-041"].verdict is Verdict.WARNING
    assert "unclear_error" in found["F-PARSE-041"].reason


@pytest.mark.slow
def test_kept_file_is_replayed(tmp_path):
    _, run_dir = tried(tmp_path, BROKEN, "AcceptsHoles", ["F-PARSE-041"])
    evidence = run_dir / "evidence"
    still = falsify("replay", evidence, "--engine", tmp_path / "engine.toml")
    fixed = falsify("replay", evidence)
    assert still.returncode == 1
    assert {line.split()[0] for line in still.stdout.splitlines()} == {"FAILED"}
    assert fixed.returncode == 0
    assert {line.split()[0] for line in fixed.stdout.splitlines()} == {"FIXED"}


def test_core_has_at_least_sixty_classes_and_knows_each():
    names = [name for row in CORE for name in CORE[row]]
    assert len(names) == len(set(names)) >= 60
    for row, listed in CORE.items():
        assert {found.name for found in tried_on(row, "default")} == set(listed)


def test_long_profile_tries_every_class():
    rows = {found.row for found in CLASSES}
    assert sum(len(tried_on(row, "long")) for row in rows) == len(CLASSES)
    assert rows == set(CORE)
