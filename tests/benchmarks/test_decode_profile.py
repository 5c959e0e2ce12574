"""The table of a decoding step by kernel, from events as the profiler tells them."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MOVED = {"qkv": 4000, "attend": 40, "out": 2000, "gate_up": 9000, "down": 5000, "head": 30000, "layers": 2}
LAYER = [("project", 2.0), ("attend", 1.0), ("combine", 0.5), ("project", 1.0), ("gate_up", 4.5), ("project", 2.5)]
STEP = [("embed", 0.5), *LAYER, *LAYER, ("head", 15.0), ("choose", 1.0), ("Memcpy DtoH", 2.0)]


@pytest.fixture(autouse=True)
def _scripts_on_the_path(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])


def test_kernels_of_one_name_are_told_apart_by_their_order():
    from decode_profile import rows_of

    rows = {row["kernel"]: row for row in rows_of(STEP * 3, 3, MOVED, 2e9)}

    assert next(iter(rows)) == "head"
    assert [rows[name]["us"] for name in ("qkv", "out", "down", "gate_up")] == [4.0, 2.0, 5.0, 9.0]
    assert {name: rows[name]["share_of_read_rate"] for name in ("qkv", "head")} == {
        "qkv": pytest.approx(0.5), "head": pytest.approx(1.0),
    }  # fmt: skip
    assert rows["qkv"]["count"] == 2
    assert rows["Memcpy DtoH"]["share_of_read_rate"] is None


def test_a_step_without_combine_is_told_apart_too():
    from decode_profile import rows_of

    joined = [event for event in STEP if event[0] != "combine"]
    rows = {row["kernel"]: row["us"] for row in rows_of(joined, 1, MOVED, 2e9)}

    assert [rows[name] for name in ("qkv", "out", "down")] == [4.0, 2.0, 5.0]


def test_where_the_order_is_another_one_names_have_to_do():
    from decode_profile import rows_of

    rows = {row["kernel"]: row for row in rows_of(STEP[:-4], 1, MOVED, 2e9)}

    assert rows["project"]["us"] == 8.5
    assert rows["project"]["count"] == 5


def test_the_page_says_the_share_of_each_kernel_and_of_the_step():
    from decode_profile import page, rows_of

    dtypes = {"F32": {"step_us": 50.0, "bytes": 50040, "kernels": rows_of(STEP, 1, MOVED, 2e9)}}
    text = page({"device": "A GPU", "read_bytes_a_second": 2e9, "dtypes": dtypes})

    assert "50 us a step after 256 tokens, 0.50 of the read rate" in text
    assert "| head | 1 | 15.0 | 36% | 0.0 | 1.00 |" in text
