"""The benchmark's arithmetic and page, and one small run on the CPU."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


def test_a_share_of_a_rate_and_of_a_duration_both_reach_one_at_the_limit():
    from rows import measured

    assert measured("decode", "ours", "F32", [400.0], "tok/s", 500.0).share_of_limit == pytest.approx(0.8)
    assert measured("load", "ours", "F32", [0.2], "s", 0.1).share_of_limit == pytest.approx(0.5)


def test_intervals_are_students_and_absent_for_one_value():
    from rows import measured

    assert measured("x", "ours", "", [3.0], "s").interval is None
    low, high = measured("x", "ours", "", [1.0, math.e], "s").interval
    assert math.log(low) == pytest.approx(0.5 - 12.706 * math.sqrt(0.5) / math.sqrt(2), rel=1e-3)
    assert math.log(high) == pytest.approx(0.5 + 12.706 * math.sqrt(0.5) / math.sqrt(2), rel=1e-3)


def test_ratios_say_how_many_times_better_ours_is():
    from rows import measured, missing, ratios

    rows = [
        measured("decode", "ours", "F32", [400.0, 400.0], "tok/s"),
        measured("decode", "peer", "F32", [100.0, 100.0], "tok/s"),
        measured("decode", "peer", "BF16", [100.0], "tok/s"),
        measured("load", "ours", "F32", [0.1], "s"),
        measured("load", "peer", "F32", [1.0], "s"),
        missing("load", "other", "F32", "not at hand"),
    ]
    found = {row.name: row for row in ratios(rows)}
    assert len(ratios(rows)) == 2
    assert found["ratio decode"].value == pytest.approx(4)
    assert found["ratio decode"].interval == pytest.approx((4, 4))
    assert found["ratio load"].value == pytest.approx(10)
    assert found["ratio load"].interval is None


def test_the_page_is_a_function_of_the_rows_and_says_what_is_missing():
    from page import page, roofline
    from rows import measured, missing

    rows = [
        measured("decode", "ours", "F32", [400.0, 401.0], "tok/s", 483.0),
        missing("decode", "<peer> | other", "F32", "not at hand | yet"),
    ]
    text = page(rows, "roofline.svg", "a device")
    assert text == page(rows, "roofline.svg", "a device")
    assert "83%" in text
    assert "not measured" in text
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}) <= 2
    root = ET.fromstring(roofline(rows))  # noqa: S314 our own output
    assert len(root.findall("{*}rect")) == 2


def test_a_part_that_fails_leaves_a_row_that_says_why(monkeypatch, tmp_path):
    import bench

    (row,) = bench.part("no such part", "F32", 60)
    assert row.value is None
    assert "no such part" in row.note
    (row,) = bench.part("limits", "", 0.01)
    assert "took more than" in row.note


def test_leak_records_are_counted_apart_from_errors():
    from memcheck import errors, leaks

    leak = "========= Leaked 1,024 bytes at 0x7f\n========= Saved\n=========     Host Frame: cudaMalloc [0x1]\n"
    text = f"{leak}{leak}========= Invalid __global__ read of size 4\n========= ERROR SUMMARY: 3 errors\n"
    assert leaks(text) == {"1,024 bytes: cudaMalloc": 2}
    assert errors(text) == 1
    assert errors("the tool died") is None


@pytest.mark.slow
def test_on_the_cpu_it_compares_with_transformers(tmp_path):
    target = tmp_path / "bench.json"
    command = [sys.executable, "benchmarks/bench.py", "--cpu", "--models", "fixture", "--json", str(target)]
    environment = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=BENCHMARKS.parent, env=environment, capture_output=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(target.read_text())
    assert [row["name"] for row in rows] == ["decode", "decode", "ratio decode"]
    assert all(row["value"] > 0 for row in rows)
    assert b"| ratio decode | ours / transformers | F32 |" in done.stdout


def test_honest_lines_are_those_with_code():
    from engine_size import code_lines

    source = '"""Text\n\nof two."""\n\nx = 1  # why\n# comment\ndef f():\n    """Doc."""\n    return """a\nb"""\n'
    assert code_lines(source) == 4
