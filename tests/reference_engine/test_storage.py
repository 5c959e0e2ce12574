"""Storages, devices and the loader on the host; the same code runs on a GPU in tests/gpu."""

from __future__ import annotations

import os
import struct

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from reference_engine.device import Device, cuda_count, parse_device
from reference_engine.errors import (
    ClosedHandle,
    DeviceNotFound,
    InvalidArgument,
    OutOfDeviceMemory,
    UnsupportedDtype,
)
from reference_engine.loader import SafeTensorsCudaLoader
from reference_engine.storage import CudaStorage

ALL_16_BITS = np.arange(65536, dtype="<u2").tobytes()


@pytest.fixture
def device():
    with Device(0, "cpu") as opened:
        yield opened


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_half_pattern_survives_bit_for_bit(device, dtype):
    storage = CudaStorage.from_bytes(ALL_16_BITS, dtype, [256, 256], device)
    assert storage.download().numpy().tobytes() == ALL_16_BITS


@pytest.mark.parametrize("offset", range(8))
def test_bytes_of_any_alignment(device, offset):
    raw = os.urandom(40 + offset)
    storage = CudaStorage.from_bytes(memoryview(raw)[offset:], "F32", [10], device)
    assert storage.download().numpy().tobytes() == raw[offset:]


def test_bf16_widens_exactly(device):
    wide = CudaStorage.from_bytes(ALL_16_BITS, "BF16", [65536], device).convert("F32")
    expected = (np.arange(65536, dtype=np.uint32) << 16).view(np.uint32)
    assert np.array_equal(wide.download().numpy().view(np.uint32), expected)


def test_f16_widens_exactly_and_nan_stays_nan(device):
    found = CudaStorage.from_bytes(ALL_16_BITS, "F16", [65536], device).convert("F32").download().numpy().view("<f4")
    # SAFETY: immutable bytes of this process, all patterns of a 16-bit type.
    expected = np.frombuffer(ALL_16_BITS, "<f2").astype("<f4")
    assert np.array_equal(found, expected, equal_nan=True)
    numbers = ~np.isnan(expected)
    assert found[numbers].tobytes() == expected[numbers].tobytes()


def test_narrowing_is_refused(device):
    with pytest.raises(InvalidArgument):
        CudaStorage.from_bytes(b"\0" * 4, "F32", [1], device).convert("BF16")


@pytest.mark.parametrize("shape", [[0], [3, 0, 2], []])
def test_empty_and_scalar_shapes(device, shape):
    data = b"" if 0 in shape else b"\0\0\x80\x3f"
    storage = CudaStorage.from_bytes(data, "F32", shape, device)
    assert storage.shape == tuple(shape)
    assert storage.download().numpy().tobytes() == data


@pytest.mark.parametrize(("data", "shape"), [(b"1234", [2]), (b"", [1]), (b"12345678", [-1, -2])])
def test_length_must_be_that_of_the_shape(device, data, shape):
    with pytest.raises(InvalidArgument):
        CudaStorage.from_bytes(data, "F32", shape, device)


def test_dtype_that_weights_cannot_have(device):
    with pytest.raises(UnsupportedDtype):
        CudaStorage.from_bytes(b"\0" * 8, "F64", [1], device)


def test_account_follows_storages(device):
    first = CudaStorage.from_bytes(b"\0" * 400, "F32", [100], device)
    second = CudaStorage.from_bytes(b"\0" * 20, "F16", [10], device)
    assert (device.live_bytes, device.live_count) == (420, 2)
    first.drop()
    first.drop()
    assert (device.live_bytes, device.live_count) == (20, 1)
    del second
    assert (device.live_bytes, device.live_count) == (0, 0)


def test_dropped_storage_and_closed_device_cannot_be_used():
    device = Device(0, "cpu")
    dropped, kept = (CudaStorage.from_bytes(b"\0" * 4, "F32", [1], device) for _ in range(2))
    dropped.drop()
    with pytest.raises(ClosedHandle):
        dropped.download()
    device.close()
    device.close()
    for use in (kept.download, device.memory, device.synchronize, lambda: kept.convert("F32")):
        with pytest.raises(ClosedHandle):
            use()


def test_more_than_is_free_is_refused_with_both_numbers_and_the_device_serves_on(device):
    _, total = device.memory()
    with pytest.raises(OutOfDeviceMemory) as caught:
        device.empty((total + 1,), torch.uint8)
    assert caught.value.asked == total + 1
    assert 0 < caught.value.free < total
    assert str(total + 1) in str(caught.value)
    assert CudaStorage.from_bytes(b"1234", "F32", [1], device).nbytes == 4


@pytest.mark.parametrize("index", [-1, 1, 99])
def test_absent_device_names_index_and_count(index):
    with pytest.raises(DeviceNotFound) as caught:
        Device(index, "cpu")
    assert (caught.value.index, caught.value.count) == (index, 1)


@pytest.mark.skipif(cuda_count() > 0, reason="there is a GPU")
def test_without_a_gpu_there_is_no_device_zero():
    with pytest.raises(DeviceNotFound, match="0 devices"):
        Device(0)


def test_device_names():
    assert parse_device("cpu") == (0, "cpu")
    assert parse_device("cuda") == (0, "cuda")
    assert parse_device("cuda:3") == (3, "cuda")
    for name in ("", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0:1"):
        with pytest.raises(InvalidArgument):
            parse_device(name)
    with pytest.raises(InvalidArgument):
        Device(0, "metal")


def test_host_device_describes_itself(device):
    assert device.name
    assert device.pci_bus_id == ""
    device.spin(1.0)
    assert torch.equal(device.through_streams(torch.arange(5), 3), torch.arange(5))
    with pytest.raises(InvalidArgument):
        device.through_streams(torch.arange(5), 0)
    with pytest.raises(InvalidArgument):
        device.spin(-1)


def test_f32_products_are_ieee(device):
    assert device.name
    a, b = torch.randn(200, 300), torch.randn(300, 100)
    exact = a.double() @ b.double()
    assert ((a @ b).double() - exact).norm() / exact.norm() < 1e-6


# --- loader -----------------------------------------------------------------------------------------------


def mixed(count=300):
    generator = torch.Generator().manual_seed(1)
    dtypes = [torch.float32, torch.float16, torch.bfloat16]
    return {
        f"t{i}": torch.randn(int(torch.randint(0, 900, (1,), generator=generator)), generator=generator).to(
            dtypes[i % 3]
        )
        for i in range(count)
    }


def test_many_tensors_each_keep_their_own_bytes(device, tmp_path):
    tensors = mixed()
    save_file(tensors, tmp_path / "many.safetensors")
    loaded = SafeTensorsCudaLoader(device).load(tmp_path / "many.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name].tensor, tensor)
    assert device.live_bytes == sum(t.nbytes for t in tensors.values())


def test_tensors_longer_than_a_slab(device, tmp_path):
    tensor = torch.randn(5_000_000)
    save_file({"long": tensor}, tmp_path / "long.safetensors")
    assert torch.equal(SafeTensorsCudaLoader(device).load(tmp_path / "long.safetensors")["long"].tensor, tensor)


@pytest.mark.parametrize("start", range(8))
def test_data_at_any_offset_from_alignment(device, tmp_path, start):
    values = np.arange(7, dtype="<f4")
    header = (
        '{"h":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},"f":{"dtype":"F32","shape":[7],"data_offsets":[2,30]}}'
    )
    header += " " * ((start - len(header)) % 8)
    path = tmp_path / "file.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\1\2" + values.tobytes())
    loaded = SafeTensorsCudaLoader(device).load(path)
    assert loaded["f"].download().numpy().tobytes() == values.tobytes()
    assert loaded["h"].download().numpy().tobytes() == b"\1\2"


def test_loaded_tensors_do_not_follow_the_file(device, tmp_path):
    path = tmp_path / "file.safetensors"
    save_file({"a": torch.ones(1000)}, path)
    loaded = SafeTensorsCudaLoader(device).load(path)
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    assert torch.equal(loaded["a"].tensor, torch.ones(1000))


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.int32, torch.int64, torch.uint8, torch.bool, torch.float8_e4m3fn]
)
def test_other_dtypes_are_refused_by_name_and_nothing_stays(device, tmp_path, dtype):
    save_file({"good": torch.ones(8), "odd.one": torch.zeros(8).to(dtype)}, tmp_path / "file.safetensors")
    with pytest.raises(UnsupportedDtype) as caught:
        SafeTensorsCudaLoader(device).load(tmp_path / "file.safetensors")
    assert caught.value.tensor == "odd.one"
    assert caught.value.dtype in str(caught.value)
    assert (device.live_bytes, device.live_count) == (0, 0)


def test_file_without_tensors(device, tmp_path):
    (tmp_path / "file.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    assert SafeTensorsCudaLoader(device).load(tmp_path / "file.safetensors") == {}
