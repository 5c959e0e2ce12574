"""What a benchmark says of matrices: every verdict that differs, and a target only where all of it was shown."""

import sys
from pathlib import Path

import pytest

from conformance.matrix.record import CellResult, MatrixRecord
from conformance.matrix.schedule import Span
from conformance.verdicts import ExitCode, Rehearsed, Verdict

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def run_of(**verdicts):
    from matrix_runs import Run

    rehearsed = {row: Rehearsed.SURVIVED for row, verdict in verdicts.items() if verdict is Verdict.UNTESTED}
    cell = CellResult("c", "e", "m", "here", ExitCode.OPEN, verdicts=verdicts, rehearsed=rehearsed)
    return Run(1.0, 0, MatrixRecord("0", list(verdicts), [cell], ExitCode.OPEN), [])


def test_verdicts_that_differ_or_are_absent_are_named():
    from matrix_runs import differing

    one = run_of(a=Verdict.CORROBORATED, b=Verdict.UNTESTED)
    assert differing([one, one]) == []
    assert differing([one, run_of(a=Verdict.FALSIFIED)]) == [
        "c a: CORROBORATED, then FALSIFIED",
        "c b: UNTESTED survived, then absent",
    ]


def test_rows_at_one_time_are_counted():
    from matrix_runs import most_at_one_time

    rows = [Span("t", "a", "", 0, 3, False), Span("t", "b", "", 1, 2, False), Span("t", "c", "", 3, 4, False)]
    assert most_at_one_time(rows) == 2
    assert most_at_one_time([]) == 0


def part(**fields):
    return {"cells": [{"devices": ["one"]}, {"devices": ["two"]}], "disturbed": [], "tenants": [], **fields}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "kept: 0.55"),
        ({"share": 0.7}, "missed: 0.70"),
        ({"differing": ["c a: x, then y"]}, "missed: c a"),
        ({"parts": {"two": part(), "one": part()}}, "not shown: a part"),
        ({"parts": {"two": part(cells=[{"devices": ["one"]}] * 2), "one": part(), "timed": part()}}, "not shown: only"),
        ({"parts": {"two": part(), "one": part(), "timed": part(disturbed=["x"])}}, "missed: x"),
        ({"parts": {"two": part(tenants=["y"]), "one": part(), "timed": part()}}, "missed: y"),
    ],
)
def test_the_target_of_two_gpus_is_kept_only_where_everything_was_shown(changes, expected):
    from two_gpus import verdict_of

    parts = {"two": part(), "one": part(), "timed": part()}
    whole = {"gpus": [1, 2], "parts": parts, "differing": [], "share": 0.55}
    assert verdict_of(whole | changes).startswith(expected)


def test_the_rows_of_the_benchmark_are_the_untimed_ones_of_the_gpu():
    from two_gpus import BESIDE_TIMED, LONG, TIMED, untimed_gpu_rows

    rows = untimed_gpu_rows()
    assert len(rows) == 59
    assert not {*rows} & {*LONG, *TIMED}
    assert {*BESIDE_TIMED} <= {*rows}
