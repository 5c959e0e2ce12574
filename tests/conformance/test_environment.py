"""The fingerprint is plain JSON, and says what it does not know."""

import json

import pytest

from conformance.environment import cpu_model, fingerprint, library_version, usable_cores
from conformance.probes.nvml import DeviceUnusable, Gpu, gpus


def test_the_fingerprint_is_json_and_names_what_a_reviewer_compares():
    device = Gpu(0, "H", "GPU-secret", "0", 1, 0, "1", "13.0", None, None, None, None, None, [])

    told = fingerprint([device])

    assert json.loads(json.dumps(told)) == told
    assert set(told) >= {"gpus", "cpu", "memory_bytes", "system", "python", "libraries"}
    assert "GPU-secret" not in json.dumps(told)
    assert {"torch", "pytest", "msgspec"} <= set(told["libraries"])
    assert usable_cores() >= 1


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ("processor: 0\nmodel name\t: Test CPU: fast\n", "Test CPU: fast"),
        ("processor: 0\nmodel name\t:\nmodel name\t: Second\n", "Second"),
    ],
)
def test_the_processor_is_named_as_the_kernel_does(tmp_path, text, model):
    (tmp_path / "cpuinfo").write_text(text)

    assert cpu_model(tmp_path / "cpuinfo") == model


@pytest.mark.parametrize("content", [None, b"", b"\xff\n"])
def test_a_processor_that_the_kernel_does_not_name_still_has_some_name(tmp_path, content):
    path = tmp_path / "cpuinfo"
    if content is not None:
        path.write_bytes(content)

    assert cpu_model(path)


def test_a_library_that_is_not_there_has_no_version():
    assert library_version("no-such-distribution") is None


def test_a_device_file_without_a_working_driver_is_unusable_and_never_a_rehearsal(tmp_path):
    (tmp_path / "nvidia0").touch()

    with pytest.raises(DeviceUnusable, match="nvidia0 present"):
        gpus(tmp_path)


def test_control_files_alone_are_no_device(tmp_path):
    for name in ("nvidiactl", "nvidia-uvm", "nvidia-caps"):
        (tmp_path / name).touch()

    assert gpus(tmp_path) == [] or gpus()
