"""The witness looks at the devices that CUDA shows, in CUDA's order."""

import pytest

from conformance.probes import nvml

UUIDS = ("GPU-aaaa-1", "GPU-bbbb-2", "GPU-bbbb-3")


class FakeNvml:
    """As much of NVML as choosing a device takes."""

    NVMLError = nvml.pynvml.NVMLError

    def nvmlInit(self):  # noqa: N802
        pass

    nvmlShutdown = nvmlInit  # noqa: N815

    def nvmlDeviceGetCount(self):  # noqa: N802
        return len(UUIDS)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return UUIDS[handle]


@pytest.fixture(autouse=True)
def three_devices(monkeypatch):
    monkeypatch.setattr(nvml, "pynvml", FakeNvml())
    monkeypatch.setattr(nvml, "_describe", nvml._handle)


@pytest.mark.parametrize(
    ("named", "seen"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("1", [1]),
        ("2,0", [2, 0]),
        (" 2 , 0 ", [2, 0]),
        ("0,-1,2", [0]),
        ("0,9,2", [0]),
        ("1,1", [1]),
        ("GPU-aaaa", [0]),
        ("GPU-bbbb-3,0", [2, 0]),
        ("NoDevFiles", []),
    ],
)
def test_an_index_is_one_among_the_visible_devices(monkeypatch, tmp_path, named, seen):
    if named is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    (tmp_path / "nvidia0").touch()

    assert nvml.gpus(tmp_path) == seen
