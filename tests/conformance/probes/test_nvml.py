"""What a matrix of faults sees of the devices that it shares."""

import os

from conformance.probes import nvml


def test_a_confined_process_sees_no_device_and_starts_engines_that_see_none(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    nvml.confine([])

    (tmp_path / "nvidia0").touch()

    assert nvml.gpus(tmp_path) == []
    assert os.environ["CUDA_VISIBLE_DEVICES"] == nvml.NONE
