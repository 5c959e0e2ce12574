"""The fused step against torch's, through Triton's interpreter in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Triton is made for Linux")


def interpreted(*arguments: object) -> dict:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, HERE / "interpreted.py", *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype", "bound"), [("tied", "F32", 5e-6), ("llama", "F32", 5e-6), ("untied", "BF16", 0.1)]
)
def test_step_equals_torch_and_itself(kind, dtype, bound, make, tmp_path):
    found = interpreted("step", make(kind, tmp_path), dtype)
    assert found["error"] < bound
    assert found["ids"] == found["torch_ids"] or dtype != "F32"
    assert found["positions"] == [50, 50]
    assert found["same_bits_again"]
    assert found["same_bits_in_longer_cache"]
    assert found["same_bits_joined"]
    assert found["cache_error"] < bound


def test_equal_maxima_give_the_lowest_id_and_nan_is_found():
    assert interpreted("choose") == {"equal": 3, "limit": 3, "nan": 5, "nan_logit": True, "all_minus_infinity": 0}
