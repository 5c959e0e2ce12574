"""Kernels loaded by several processes at once through one empty cache: each gets its own, and decodes as the others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.corpus.models import FIXTURE

DEVICE_FILES = list(Path("/dev").glob("nvidia[0-9]*"))
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not DEVICE_FILES, reason="no NVIDIA device file")]
PROCESSES = 4
PROGRAM = """
import sys
from reference_engine.device import Device
from reference_engine.generate import GenerationRequest
from reference_engine.model import SafeTensorsCudaModel
with Device(0) as device:
    model = SafeTensorsCudaModel.from_safetensors(sys.argv[1], device)
    outcome = model.generate(GenerationRequest([5, 17, 33, 60] * 8, 24, ignore_eos=True))
    print(type(model.decoder.step).__name__, model.decoder.declined, *outcome.ids)
"""


@pytest.mark.parametrize("attempt", range(3))
def test_processes_that_share_an_empty_cache_load_the_kernels_they_asked_for(attempt, tmp_path):
    environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path / "cache")}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(FIXTURE)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(PROCESSES)
    ]  # fmt: skip
    told = [one.communicate(timeout=120) for one in started]
    assert [one.returncode for one in started] == [0] * PROCESSES, told
    assert len({out for out, _ in told}) == 1, told
    assert told[0][0].startswith("FusedStep ")
