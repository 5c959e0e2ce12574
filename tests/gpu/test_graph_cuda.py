"""Decoding through CUDA graphs, on a real device. What is not the capture itself is tested on the CPU."""

from __future__ import annotations

import gc
import importlib.util
import sys
from pathlib import Path

import msgspec
import pytest
import torch

from reference_engine.decode import Decoder, torch_step
from reference_engine.device import Device
from reference_engine.errors import ClosedHandle, DeviceFailed, EngineError, OutOfDeviceMemory
from reference_engine.generate import GenerationRequest, generate
from reference_engine.model import SafeTensorsCudaModel

DEVICE_FILES = list(Path("/dev").glob("nvidia[0-9]*"))
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not DEVICE_FILES, reason="no NVIDIA device file")]
ENGINE_TESTS = Path(__file__).parents[1] / "reference_engine" / "conftest.py"
PROMPT = [5, 400, 33, 7, 91, 250, 11, 12, 300, 64, 5, 5]
MIB = 1 << 20


@pytest.fixture
def device():
    with Device(0) as opened:
        yield opened


@pytest.fixture(scope="module", params=["tied", "untied", "llama"])
def checkpoint(request, tmp_path_factory):
    return made(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def tied(tmp_path_factory):
    return made("tied", tmp_path_factory.mktemp("tied"))


def made(kind, path):
    spec = importlib.util.spec_from_file_location("engine_checkpoints", ENGINE_TESTS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_checkpoint(kind, path)


def load(path, device, dtype=None, graphs=None):
    return SafeTensorsCudaModel.from_safetensors(path, device, dtype, graphs)


def run(model, count, prompt=PROMPT, decoder=None, **options):
    options.setdefault("ignore_eos", True)
    outcome, ids = generate(model, GenerationRequest(prompt, count, **options), decoder=decoder)
    assert list(ids) == outcome.ids
    return outcome


def held(device):
    gc.collect()
    device.synchronize()
    device.trim()
    return torch.cuda.memory_reserved(device.torch), torch.cuda.memory_allocated(device.torch)


@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_graphs_are_the_default_and_give_the_eager_ids_across_buckets(checkpoint, device, dtype):
    model, eager = load(checkpoint, device, dtype), load(checkpoint, device, dtype, graphs=False)
    assert model.decoder.graphs
    assert not eager.decoder.graphs
    expected = run(eager, 300)
    for _ in range(2):
        found = run(model, 300)
        assert found.ids == expected.ids
        assert found.positions == expected.positions
    assert set(model.decoder._idle.graphs.captured) == {("prompt", 16), 256, 512}
    assert eager.decoder._idle.graphs is None


def test_ids_are_those_of_the_cpu(checkpoint, device):
    assert run(load(checkpoint, device), 300).ids == run(load(checkpoint, Device(0, "cpu")), 300).ids


def test_every_replay_gives_the_same_bits(checkpoint, device):
    model = load(checkpoint, device)

    def logits_and_ids():
        found = []
        with model.decoder.begin(model, PROMPT, 300, None) as decoding:
            decoding.feed(7)
            for _ in range(280):
                logits = decoding.step()
                found.append(logits.clone())
        return torch.stack(found)

    logits_and_ids()
    first = logits_and_ids()
    assert first.isfinite().all()
    for turn in range(10):
        run(model, 20, [turn + 1, 4])
        assert torch.equal(logits_and_ids(), first)


def test_first_run_and_replay_and_eager_agree_in_bits(checkpoint, device):
    model, eager = load(checkpoint, device), load(checkpoint, device, graphs=False)
    rows = []
    for one in (model, model, eager):
        with one.decoder.begin(one, PROMPT, 40, None) as decoding:
            decoding.feed(7)
            rows.append(torch.stack([decoding.step().clone() for _ in range(20)]))
    assert (rows[0] - rows[2]).abs().max() < 1e-5
    assert torch.equal(rows[0], rows[1])


def test_stop_ids_limits_and_sampling_are_those_of_eager_steps(checkpoint, device):
    model, eager = load(checkpoint, device), load(checkpoint, device, graphs=False)
    free = run(eager, 40).ids
    for stop in free[:7]:
        model.config = eager.config = msgspec.structs.replace(eager.config, eos_token_ids=(stop,))
        found, expected = run(model, 40, ignore_eos=False), run(eager, 40, ignore_eos=False)
        assert (found.ids, found.stop_id, found.positions) == (expected.ids, expected.stop_id, expected.positions)
    for count in range(8):
        assert run(model, count).ids == free[:count]
    sampled = {"temperature": 0.7, "seed": 4}
    assert run(model, 20, **sampled).ids == run(eager, 20, **sampled).ids
    full = [1] * model.config.max_positions
    assert run(model, 9, full[:-3]).ids == run(eager, 9, full[:-3]).ids


def test_two_models_and_overlapping_requests(tied, device):
    a, b = load(tied, device), load(tied, device, "BF16")
    expected = run(a, 60).ids, run(b, 60).ids, run(a, 60, [9, 8, 7]).ids
    runs = [
        generate(a, GenerationRequest(PROMPT, 60, ignore_eos=True))[1],
        generate(b, GenerationRequest(PROMPT, 60, ignore_eos=True))[1],
        generate(a, GenerationRequest([9, 8, 7], 60, ignore_eos=True))[1],
    ]
    found = list(zip(*zip(*runs, strict=True), strict=True))
    assert [list(ids) for ids in found] == list(expected)
    a.unload()
    assert run(b, 60).ids == expected[1]


def test_unloading_releases_graphs_and_their_pool_and_a_reload_works(checkpoint, device):
    expected = None
    before = None
    for turn in range(5):
        model = load(checkpoint, device)
        ids = run(model, 600).ids
        expected = expected or ids
        assert ids == expected
        assert model.decoder._idle.graphs.captured
        model.unload()
        with pytest.raises(ClosedHandle):
            run(model, 1)
        # The first turn pays once for the side stream's cuBLAS workspace.
        if turn == 0:
            before = held(device), torch.cuda.mem_get_info(0)[0]
    assert held(device) == before[0]
    assert before[1] - torch.cuda.mem_get_info(0)[0] < 8 * MIB


def test_nothing_is_left_of_a_model_that_threads_and_streams_ran(checkpoint, device):
    device.trim()
    before = torch.cuda.memory_reserved()
    for _ in range(2):
        model = load(checkpoint, device)
        # A prompt too long for a graph, and steps through one: products on two streams, and in the threads of the load.
        run(model, 40, PROMPT * 60)
        model.unload()
    assert torch.cuda.memory_reserved() - before <= 2 * MIB


def test_unloading_under_way_ends_the_request_and_nothing_is_replayed(tied, device):
    model = load(tied, device)
    _, ids = generate(model, GenerationRequest(PROMPT, 200, ignore_eos=True))
    for _ in range(30):
        next(ids)
    model.unload()
    with pytest.raises(ClosedHandle):
        list(ids)
    device.synchronize()
    assert len(run(load(tied, device), 5).ids) == 5


def test_steps_allocate_nothing(tied, device):
    model = load(tied, device)
    run(model, 200)
    with model.decoder.begin(model, PROMPT, 200, None) as decoding:
        decoding.feed(1)
        decoding.step()
        before = torch.cuda.memory_stats(0)["allocation.all.allocated"]
        for _ in range(100):
            decoding.step()
        assert torch.cuda.memory_stats(0)["allocation.all.allocated"] == before


def test_steps_copy_nothing_between_host_and_device(tied, device):
    model = load(tied, device)
    run(model, 200)
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with model.decoder.begin(model, PROMPT, 200, None) as decoding:
        decoding.feed(1)
        device.synchronize()
        with torch.profiler.profile(activities=activities, acc_events=True) as profile:
            for _ in range(20):
                decoding.step()
            device.synchronize()
    names = [event.key for event in profile.key_averages()]
    assert names
    assert not [name for name in names if "HtoD" in name or "DtoH" in name]


def test_out_of_memory_is_typed_and_the_next_request_is_served(tied, device):
    model = load(tied, device)
    expected = run(model, 100).ids
    model.decoder.release()
    device.trim()
    _, total = device.memory()
    # The scores of this prompt need 25 MB, and nothing more may be taken from the driver.
    torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved(0) / total, 0)
    try:
        with pytest.raises(OutOfDeviceMemory):
            run(model, 10, [1] * 1500)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)
    assert run(model, 100).ids == expected


@pytest.mark.parametrize("at", [1, 2], ids=["first run", "recording"])
def test_out_of_memory_inside_a_step_is_typed_and_served_after(tied, device, at):
    model = load(tied, device)
    expected = run(model, 100).ids
    calls = []

    def greedy_for_memory(model, state, length):
        calls.append(length)
        if len(calls) == at:
            torch.empty(1 << 50, dtype=torch.uint8, device=device.torch)
        return torch_step(model, state, length)

    decoder = Decoder(graphs=True, step=greedy_for_memory)
    with pytest.raises(OutOfDeviceMemory):
        run(model, 100, decoder=decoder)
    assert torch.cuda.current_stream(0) == torch.cuda.default_stream(0)
    assert run(model, 100, decoder=decoder).ids == expected
    assert run(model, 100).ids == expected


def test_a_step_that_cannot_be_recorded_is_an_error_and_not_run_eagerly(tied, device):
    model = load(tied, device)
    expected = run(model, 50).ids

    def synchronising(model, state, length):
        state.token.item()
        return torch_step(model, state, length)

    decoder = Decoder(graphs=True, step=synchronising)
    with pytest.raises(DeviceFailed) as caught:
        run(model, 50, decoder=decoder)
    assert isinstance(caught.value, EngineError)
    assert torch.cuda.current_stream(0) == torch.cuda.default_stream(0)
    device.trim()
    assert run(model, 50).ids == expected
    assert run(load(tied, device), 50).ids == expected


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_rates_at_the_geometry(device, dtype, capsys):
    import bench_decode

    limit = bench_decode.read_rate(device)
    device.trim()
    torch.cuda.reset_peak_memory_stats(0)
    rates = bench_decode.measure(device, dtype, limit)
    peak = torch.cuda.max_memory_reserved(0)
    with capsys.disabled():
        sys.stdout.write(f"\n{device.name}: {limit:.0f} GB/s read; {dtype} holds at most {peak / 1e9:.2f} GB\n")
        for rate in rates:
            sys.stdout.write(f"  {rate}\n")
    assert all(rate.ids == rates[0].ids for rate in rates)
    assert peak < 8e9
    assert rates[3].tokens_per_second > 1.5 * rates[1].tokens_per_second
