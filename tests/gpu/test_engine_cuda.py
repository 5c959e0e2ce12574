"""Every CUDA path of the reference engine, on a real device. Skipped only where the system shows none."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from conformance.engines.reference import ReferenceEngine
from conformance.protocol import messages as m
from conformance.protocol.tensors import read_tensor, to_numpy, write_tensor
from reference_engine.device import Device, cuda_count
from reference_engine.errors import ClosedHandle, DeviceNotFound, OutOfDeviceMemory
from reference_engine.generate import GenerationRequest
from reference_engine.loader import SafeTensorsCudaLoader
from reference_engine.model import SafeTensorsCudaModel
from reference_engine.storage import CudaStorage, PinnedRing, as_bytes, host_bytes

DEVICE_FILES = list(Path("/dev").glob("nvidia[0-9]*"))
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not DEVICE_FILES, reason="no NVIDIA device file")]
ENGINE_TESTS = Path(__file__).parents[1] / "reference_engine" / "conftest.py"
PROMPT = [5, 400, 33, 7, 91, 250, 11, 12, 300, 64, 5, 5]
MIB = 1 << 20


@pytest.fixture
def device():
    with Device(0) as opened:
        yield opened


@pytest.fixture(scope="session", params=["tied", "untied", "llama"])
def checkpoint(request, tmp_path_factory):
    spec = importlib.util.spec_from_file_location("engine_checkpoints", ENGINE_TESTS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_checkpoint(request.param, tmp_path_factory.mktemp(request.param))


def test_torch_sees_what_the_system_shows():
    assert cuda_count() > 0


# --- device -----------------------------------------------------------------------------------------------


def test_device_describes_itself(device):
    free, total = device.memory()
    assert 0 < free <= total
    assert device.name
    assert len(device.pci_bus_id.split(":")) == 3


@pytest.mark.parametrize("index", [-1, 99])
def test_absent_device_is_named_and_device_zero_still_opens(index):
    with pytest.raises(DeviceNotFound) as caught:
        Device(index)
    assert (caught.value.index, caught.value.count) == (index, cuda_count())
    Device(0).close()


def test_out_of_memory_is_an_error_and_the_device_serves_on(device):
    free, total = device.memory()
    with pytest.raises(OutOfDeviceMemory) as caught:
        device.empty((total + 1,), torch.uint8)
    assert (caught.value.asked, caught.value.free) == (total + 1, pytest.approx(free, rel=0.05))
    # Past our own check, so that the allocator itself fails.
    with pytest.raises(OutOfDeviceMemory), device.guard():
        torch.empty(total + 1, dtype=torch.uint8, device=device.torch)
    assert CudaStorage.from_bytes(b"1234", "F32", [1], device).download().numpy().tobytes() == b"1234"
    assert device.memory()[0] == pytest.approx(free, rel=0.05)


@pytest.mark.parametrize("milliseconds", [50.0, 400.0])
def test_spin_is_queued_and_synchronise_waits_for_it(device, milliseconds):
    device.synchronize()
    start = time.perf_counter()
    device.spin(milliseconds)
    queued = time.perf_counter() - start
    device.synchronize()
    waited = time.perf_counter() - start
    assert queued < milliseconds / 2000
    assert milliseconds / 1000 <= waited < milliseconds / 1000 * 3


def test_data_survives_a_chain_of_streams(device):
    tensor = torch.arange(4_000_000, dtype=torch.float32)
    for hops in (1, 2, 64):
        assert torch.equal(device.through_streams(tensor.to(device.torch), hops).cpu(), tensor)


def test_f32_products_are_ieee(device):
    a, b = torch.randn(512, 512), torch.randn(512, 512)
    exact = a.double() @ b.double()
    found = (a.to(device.torch) @ b.to(device.torch)).cpu().double()
    assert (found - exact).norm() / exact.norm() < 1e-6


def test_open_use_close_does_not_grow():
    def cycle():
        with Device(0) as device:
            storage = CudaStorage.from_bytes(bytes(64 * MIB), "F32", [16 * MIB], device)
            storage.drop()

    for _ in range(4):
        cycle()
    before = torch.cuda.mem_get_info(0)[0]
    for _ in range(20):
        cycle()
    assert before - torch.cuda.mem_get_info(0)[0] < 4 * MIB


# --- storage ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_half_pattern_survives_and_widens_exactly(device, dtype):
    bits = np.arange(65536, dtype="<u2")
    storage = CudaStorage.from_bytes(bits.tobytes(), dtype, [256, 256], device)
    assert storage.download().numpy().tobytes() == bits.tobytes()
    found = storage.convert("F32").download().numpy().view("<u4")
    expected = bits.astype("<u4") << 16 if dtype == "BF16" else bits.view("<f2").astype("<f4").view("<u4")
    numbers = ~np.isnan(expected.view("<f4"))
    assert np.array_equal(found[numbers], expected[numbers])
    assert np.isnan(found.view("<f4")[~numbers]).all()


@pytest.mark.parametrize("offset", range(8))
def test_bytes_of_any_alignment(device, offset):
    raw = os.urandom(40 + offset)
    storage = CudaStorage.from_bytes(memoryview(raw)[offset:], "F32", [10], device)
    assert storage.download().numpy().tobytes() == raw[offset:]


@pytest.mark.parametrize("shape", [[0], [3, 0, 2], []])
def test_empty_and_scalar_shapes(device, shape):
    data = b"" if 0 in shape else b"\0\0\x80\x3f"
    assert CudaStorage.from_bytes(data, "F32", shape, device).download().numpy().tobytes() == data


def test_a_gigabyte_survives_bit_for_bit(device):
    block = os.urandom(16 * MIB)
    data = block * 64
    storage = CudaStorage.from_bytes(data, "F32", [len(data) // 4], device)
    assert storage.download().numpy().tobytes() == data


def test_ring_never_refills_a_slab_too_early(device):
    ring = PinnedRing(device, slab_bytes=MIB, slabs=2)
    # The copies wait behind this, so that a slab filled too early is seen.
    with torch.cuda.stream(ring.stream):
        torch.cuda._sleep(200_000_000)
    sent = [host_bytes(os.urandom(3 * MIB + 5)) for _ in range(32)]
    storages = [CudaStorage.empty("F16", [(t.numel() + 1) // 2], device) for t in sent]
    for source, storage in zip(sent, storages, strict=True):
        ring.upload(source, as_bytes(storage.tensor)[: source.numel()])
    device.synchronize()
    for source, storage in zip(sent, storages, strict=True):
        assert torch.equal(storage.download()[: source.numel()], source)


def test_dropped_memory_goes_back_to_the_driver(device):
    before = torch.cuda.mem_get_info(0)[0]
    storage = CudaStorage.from_bytes(bytes(512 * MIB), "F32", [128 * MIB], device)
    assert before - torch.cuda.mem_get_info(0)[0] >= 512 * MIB
    storage.drop()
    device.trim()
    assert before - torch.cuda.mem_get_info(0)[0] < 4 * MIB
    with pytest.raises(ClosedHandle):
        storage.download()


def test_rates_from_outside(device, capsys):
    size = 1 << 30
    rates = {}
    for pinned in (False, True):
        host = torch.ones(size, dtype=torch.uint8, pin_memory=pinned)
        storage = CudaStorage.empty("F32", [size // 4], device)
        seconds = []
        for count in (2, 10):
            start = time.perf_counter()
            for _ in range(count):
                storage.overwrite(host)
            device.synchronize()
            seconds.append(time.perf_counter() - start)
        rates[pinned] = 8 * size / (seconds[1] - seconds[0]) / 1e9
    with capsys.disabled():
        sys.stdout.write(f"\npageable {rates[False]:.1f} GB/s, pinned {rates[True]:.1f} GB/s\n")
    assert rates[True] > 2 * rates[False]


# --- loader -----------------------------------------------------------------------------------------------


def test_many_mixed_tensors(device, tmp_path):
    dtypes = [torch.float32, torch.float16, torch.bfloat16]
    tensors = {f"t{i}": torch.randn((i * 37) % 5000).to(dtypes[i % 3]) for i in range(1000)}
    save_file(tensors, tmp_path / "many.safetensors")
    loaded = SafeTensorsCudaLoader(device).load(tmp_path / "many.safetensors")
    (tmp_path / "many.safetensors").write_bytes(b"")
    for name, tensor in tensors.items():
        assert loaded[name].tensor.is_cuda
        assert torch.equal(loaded[name].tensor.cpu(), tensor), name
    assert device.live_bytes == sum(t.nbytes for t in tensors.values())


def test_load_of_four_gigabytes(device, tmp_path, capsys):
    tensors = {f"t{i}": torch.randint(-9, 9, (128 * MIB,), dtype=torch.float32) for i in range(8)}
    path = tmp_path / "big.safetensors"
    save_file(tensors, path)
    for turn in range(3):
        start = time.perf_counter()
        loaded = SafeTensorsCudaLoader(device).load(path)
        seconds = time.perf_counter() - start
        with capsys.disabled():
            sys.stdout.write(f"\nload {turn}: {path.stat().st_size / seconds / 1e9:.1f} GB/s\n")
        if turn < 2:
            del loaded
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name].tensor.cpu(), tensor), name


def test_failed_load_leaves_nothing(device, tmp_path):
    _, total = device.memory()
    header = json.dumps({"a": {"dtype": "F32", "shape": [total // 2], "data_offsets": [0, total // 2 * 4]}}).encode()
    path = tmp_path / "huge.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + total // 2 * 4)
    before = torch.cuda.mem_get_info(0)[0]
    with pytest.raises(OutOfDeviceMemory):
        SafeTensorsCudaLoader(device).load(path)
    gc.collect()
    assert device.live_bytes == 0
    assert before - torch.cuda.mem_get_info(0)[0] < 4 * MIB


# --- model ------------------------------------------------------------------------------------------------


def test_gpu_computes_what_the_cpu_computes(checkpoint, device):
    on_cpu = SafeTensorsCudaModel.from_safetensors(checkpoint, Device(0, "cpu"))
    on_gpu = SafeTensorsCudaModel.from_safetensors(checkpoint, device)
    assert on_gpu.used_gpu
    assert not on_cpu.used_gpu
    ids = [(7 * i * i + 3 * i) % 500 for i in range(1500)]
    for prompt in (PROMPT, ids):
        assert (on_gpu.logits(prompt).cpu() - on_cpu.logits(prompt)).abs().max() < 1e-4
    request = GenerationRequest(PROMPT, 80, ignore_eos=True)
    assert on_gpu.generate(request).ids == on_cpu.generate(request).ids
    sampled = GenerationRequest(PROMPT, 8, temperature=0.7, seed=4, ignore_eos=True)
    assert on_gpu.generate(sampled).ids == on_gpu.generate(sampled).ids


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_half_precision_is_near(checkpoint, device, dtype):
    exact = SafeTensorsCudaModel.from_safetensors(checkpoint, device).logits(PROMPT)
    half = SafeTensorsCudaModel.from_safetensors(checkpoint, device, dtype)
    assert {s.dtype for s in half.weights.storages.values()} == {dtype}
    assert torch.nn.functional.cosine_similarity(half.logits(PROMPT), exact, dim=-1).min() > 0.999


def test_same_bits_ten_times(checkpoint, device):
    model = SafeTensorsCudaModel.from_safetensors(checkpoint, device)
    first = model.logits(PROMPT)
    for turn in range(10):
        model.generate(GenerationRequest([turn, 4, 5], 20, ignore_eos=True))
        assert torch.equal(model.logits(PROMPT), first)


def test_generations_do_not_grow_memory(checkpoint, device):
    model = SafeTensorsCudaModel.from_safetensors(checkpoint, device)
    request = GenerationRequest(PROMPT, 40, ignore_eos=True)
    for _ in range(5):
        model.generate(request)
    before = (torch.cuda.memory_allocated(0), torch.cuda.mem_get_info(0)[0])
    for _ in range(50):
        model.generate(request)
    assert (torch.cuda.memory_allocated(0), torch.cuda.mem_get_info(0)[0]) == before


def test_unloading_gives_memory_back(checkpoint, device):
    SafeTensorsCudaModel.from_safetensors(checkpoint, device).logits(PROMPT)
    gc.collect()
    device.trim()
    before = torch.cuda.memory_allocated(0)
    model = SafeTensorsCudaModel.from_safetensors(checkpoint, device)
    assert torch.cuda.memory_allocated(0) > before
    model.unload()
    gc.collect()
    assert torch.cuda.memory_allocated(0) == before


# --- adapter and command line -----------------------------------------------------------------------------


def test_adapter_on_the_device(tmp_path):
    engine = ReferenceEngine()
    engine.initialize(m.Initialize(str(tmp_path)))
    listed = engine.device_list(m.Empty()).devices
    opened = engine.device_open(m.DeviceOpen(0))
    assert opened.info == listed[0]
    values = np.arange(24, dtype="<f4").reshape(4, 6)
    sent = write_tensor(tmp_path, "F32", values.shape, values.tobytes())
    for pinned in (False, True):
        upload = m.Upload(opened.handle, [sent] * 40, pinned, asynchronous=True)
        handles = engine.storage_upload(upload).handles
        engine.device_synchronize(m.Handle(opened.handle))
        for handle in handles:
            data = engine.storage_download(m.Handle(handle))
            assert np.array_equal(to_numpy(data, read_tensor(tmp_path, data)), values)
        engine.storage_drop(m.Drop(handles))
        staged = engine.storage_stage(m.Stage(opened.handle, [sent], pinned)).handle
        engine.storage_upload_staged(m.UploadStaged(staged, 5))
        engine.storage_drop(m.Drop([staged]))
    buffer = engine.device_allocate(m.Allocate(opened.handle, 64 * MIB)).handle
    assert engine.device_memory(m.Handle(opened.handle)).allocated_bytes == 64 * MIB
    engine.device_free(m.Handle(buffer))
    engine.device_enqueue(m.Enqueue(opened.handle, 5.0))
    product = engine.device_matmul(
        m.MatMul(opened.handle, sent, write_tensor(tmp_path, "F32", [6, 4], values.T.tobytes()))
    )
    assert np.array_equal(to_numpy(product, read_tensor(tmp_path, product)), values @ values.T)
    arrived = engine.device_copy_across_streams(m.CopyAcrossStreams(opened.handle, sent, 8))
    assert np.array_equal(to_numpy(arrived, read_tensor(tmp_path, arrived)), values)
    assert engine.storage_account(m.Handle(opened.handle)) == m.Account(0, 0)
    engine.device_close(m.Handle(opened.handle))


@pytest.mark.parametrize("flags", [["--gpu"], [], ["--no-gpu"]])
def test_command_line_names_its_backend(checkpoint, flags):
    command = [sys.executable, "-m", "reference_engine.cli", "chat", checkpoint, *flags, "-n", "5", "--json", "-v"]
    done = subprocess.run(command, input=b"2+2=\n", capture_output=True, timeout=120, check=True)
    used = flags != ["--no-gpu"]
    assert json.loads(done.stdout)["used_gpu"] is used
    assert (b"Backend: GPU (" if used else b"Backend: CPU (") in done.stderr
    assert used or b"GPU" not in done.stderr
