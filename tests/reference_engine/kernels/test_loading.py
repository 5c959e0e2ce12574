"""How kernels come to a device: no launcher is made twice at the same time, in one process or in several."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

loading = pytest.importorskip("reference_engine.kernels.loading", reason="Triton is made for Linux")


def compiled(name, **signature):
    return SimpleNamespace(name=name, src=SimpleNamespace(signature=signature))


def test_kernels_of_one_signature_come_one_after_the_other_and_all_others_at_once():
    kernels = [
        compiled("qkv", x="*fp32", rows="i32"),
        compiled("attend", x="*fp32", cos="*fp32"),
        compiled("out", x="*fp32", rows="i32"),
        # Names of arguments are not in a launcher, and their types are.
        compiled("combine", partial="*fp32", peaks="*fp32"),
        compiled("down", x="*fp32", rows="i32"),
        compiled("embed", x="*bf16", rows="i32"),
    ]
    told = [[kernel.name for kernel in turn] for turn in loading.turns(kernels)]
    assert told == [["qkv", "attend", "embed"], ["out", "combine"], ["down"]]


def test_a_process_waits_for_another_that_loads_through_the_same_cache(tmp_path):
    program = """
import sys, time
from pathlib import Path
from reference_engine.kernels.loading import _alone_with
with _alone_with(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(0.2)
    print("out", flush=True)
"""
    with (tmp_path / "told").open("wb") as told:
        both = [
            subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "cache")], stdout=told) for _ in range(2)
        ]
        assert [one.wait(timeout=60) for one in both] == [0, 0]
    assert (tmp_path / "told").read_text().split() == ["in", "out", "in", "out"]
