"""What Ray is asked to reserve for a cell; without Ray, `--ray` is one line."""

import importlib.util
import subprocess
import sys

import pytest
from trial_support import environment

from conformance.matrix.cells import Cell
from conformance.matrix.devices import NoSuchDevice
from conformance.matrix.ray_pool import needs_of
from conformance.verdicts import ExitCode

GPUS = {"CPU": 32.0, "GPU": 8.0, "accelerator_type:H100": 1.0, "accelerator_type:A100-80G": 1.0}


def cell(device):
    return Cell("1", "e", "m", device)


@pytest.mark.parametrize(
    ("device", "resources", "needs"),
    [
        ("here", {"CPU": 4.0}, {"num_cpus": 2, "num_gpus": 0}),
        ("here", GPUS, {"num_cpus": 2, "num_gpus": 1}),
        ("h100", GPUS, {"num_cpus": 2, "num_gpus": 1, "resources": {"accelerator_type:H100": 0.001}}),
    ],
)
def test_a_cell_reserves_a_gpu_where_the_cluster_has_one(device, resources, needs):
    assert needs_of(cell(device), 2, resources) == needs


@pytest.mark.parametrize(("device", "resources"), [("V100", GPUS), ("100", GPUS), ("H100", {"CPU": 4.0})])
def test_a_gpu_that_no_machine_has_or_an_unclear_one_is_refused(device, resources):
    with pytest.raises(NoSuchDevice, match=device):
        needs_of(cell(device), 1, resources)


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed here")
def test_a_cluster_without_ray_is_one_line(tmp_path):
    (tmp_path / "m.toml").write_text('engines = ["reference"]')
    words = [sys.executable, "-m", "conformance", "matrix", tmp_path / "m.toml", "--out", tmp_path / "o"]
    done = subprocess.run(
        [*words, "--ray", "auto"], capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert done.returncode == ExitCode.USAGE
    assert "falsify-inference[ray]" in done.stderr
