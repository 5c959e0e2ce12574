"""Decoding on fixed memory: buckets, late reading, overlapping requests; on the CPU, where nothing is captured."""

from __future__ import annotations

import weakref

import msgspec
import pytest
import torch

from reference_engine.decode import Decoder, DecodeState, torch_step
from reference_engine.device import Device
from reference_engine.errors import ClosedHandle, InvalidArgument, NonFiniteLogits
from reference_engine.generate import GenerationRequest, generate
from reference_engine.model import SafeTensorsCudaModel

PROMPT = [5, 400, 33, 7, 91, 250, 11, 12, 300, 64, 5, 5]


@pytest.fixture(scope="module", params=[None, "BF16", "F16"])
def model(request, checkpoint, cpu):
    return SafeTensorsCudaModel.from_safetensors(checkpoint.path, cpu, request.param)


@pytest.fixture
def f32(tied, cpu):
    return SafeTensorsCudaModel.from_safetensors(tied.path, cpu)


def run(model, decoder, prompt, count, **options):
    options.setdefault("ignore_eos", True)
    outcome, ids = generate(model, GenerationRequest(prompt, count, **options), decoder=decoder)
    assert list(ids) == outcome.ids
    return outcome


class Recorder:
    """A step that keeps what it saw."""

    def __init__(self):
        self.logits, self.lengths, self.positions, self.storages = [], [], [], set()

    def __call__(self, model, state, length):
        logits = torch_step(model, state, length)
        self.logits.append(logits.clone())
        self.lengths.append(length)
        self.positions.append(int(state.position))
        # SAFETY: the address is only compared, never followed.
        self.storages.add((state.token.data_ptr(), state.position.data_ptr(), state.cache.pairs.data_ptr()))
        return logits


def without_steps(model, prompt, count):
    """Ids by running the whole text through the model for each: nothing shared with decoding."""
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model.logits(ids, last=1)[0].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("length", [1, 2, 7, 8, 9, 15, 16, 17])
def test_steps_equal_the_whole_text_across_buckets(model, length):
    prompt = (PROMPT * 2)[:length]
    recorder = Recorder()
    found = run(model, Decoder(step=recorder, first_bucket=8, read_every=3), prompt, 20)
    tolerance = {torch.float32: 2e-5, torch.bfloat16: 0.3, torch.float16: 0.05}[model.weights.dtype]
    expected = model.logits([*prompt, *found.ids], last=20)
    for step, logits in enumerate(recorder.logits[:19]):
        assert (logits - expected[step]).abs().max() < tolerance
    assert recorder.positions == list(range(length, length + 19))
    assert all(position < bucket for position, bucket in zip(recorder.positions, recorder.lengths, strict=True))
    if model.weights.dtype == torch.float32:
        assert found.ids == without_steps(model, prompt, 20)


@pytest.mark.parametrize("read_every", [2, 4, 5, 64])
def test_reading_late_changes_neither_ids_nor_bits(model, read_every):
    early, late = Recorder(), Recorder()
    first = run(model, Decoder(step=early, read_every=1), PROMPT, 30)
    second = run(model, Decoder(step=late, read_every=read_every), PROMPT, 30)
    assert first.ids == second.ids
    assert first.positions == second.positions == len(PROMPT) + 29
    assert len(early.logits) == len(late.logits) == 29
    assert all(torch.equal(a, b) for a, b in zip(early.logits, late.logits, strict=True))


def test_buckets_double_up_to_the_capacity_and_no_step_allocates_state(f32):
    recorder = Recorder()
    run(f32, Decoder(step=recorder, first_bucket=8), PROMPT, 60)
    assert sorted(set(recorder.lengths)) == [16, 32, 64, 128]
    assert len(recorder.storages) == 1
    changes = [i for i, (a, b) in enumerate(zip(recorder.lengths, recorder.lengths[1:], strict=False)) if a != b]
    assert [recorder.positions[i] for i in changes] == [15, 31, 63]


@pytest.mark.parametrize("read_every", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stop_at", range(6))
def test_what_follows_a_stop_id_is_cut_off(f32, read_every, stop_at):
    free = run(f32, None, PROMPT, 12)
    stop = free.ids[stop_at]
    f32.config = msgspec.structs.replace(f32.config, eos_token_ids=(stop,))
    found = run(f32, Decoder(read_every=read_every), PROMPT, 12, ignore_eos=False)
    first = free.ids.index(stop)
    assert (found.ids, found.finish_reason, found.stop_id) == (free.ids[:first], "stop", stop)
    assert found.positions == len(PROMPT) + first


@pytest.mark.parametrize("room", [0, 1, 2, 3, 5])
def test_positions_run_out_exactly(f32, room):
    f32.config = msgspec.structs.replace(f32.config, max_positions=len(PROMPT) + room)
    recorder = Recorder()
    found = run(f32, Decoder(step=recorder, first_bucket=8, read_every=4), PROMPT, 100)
    assert (len(found.ids), found.finish_reason) == (room + 1, "length")
    assert recorder.positions == [len(PROMPT) + i for i in range(room)]
    assert set(recorder.lengths) <= {16, len(PROMPT) + room}


def test_limit_of_ids_holds_in_prefill_and_steps(f32):
    free = run(f32, None, PROMPT, 40).ids
    limit = max(free)
    _, ids = generate(f32, GenerationRequest(PROMPT, 40, ignore_eos=True), limit)
    held = list(ids)
    assert max(held) < limit
    assert held[: free.index(limit)] == free[: free.index(limit)]
    assert run(f32, None, PROMPT, 40).ids == free


def test_memory_is_reused_when_it_fits_and_replaced_when_not(f32):
    decoder = Decoder(first_bucket=32)
    run(f32, decoder, PROMPT, 10)
    kept = decoder._idle
    run(f32, decoder, PROMPT, 21)
    assert decoder._idle is kept
    assert kept.cache.capacity == 32
    gone = weakref.ref(kept)
    del kept
    run(f32, decoder, PROMPT, 22)
    assert decoder._idle.cache.capacity == 64
    assert gone() is None


def test_requests_that_overlap_do_not_disturb_each_other(f32):
    first, second = run(f32, None, PROMPT, 24).ids, run(f32, None, PROMPT[::-1], 24).ids
    _, a = generate(f32, GenerationRequest(PROMPT, 24, ignore_eos=True))
    _, b = generate(f32, GenerationRequest(PROMPT[::-1], 24, ignore_eos=True))
    pairs = list(zip(a, b, strict=True))
    assert [x for x, _ in pairs] == first
    assert [y for _, y in pairs] == second


def test_abandoned_request_gives_its_memory_back(f32):
    expected = run(f32, None, PROMPT, 9).ids
    _, ids = generate(f32, GenerationRequest([1, 2, 3], 200, ignore_eos=True))
    next(ids)
    ids.close()
    assert not f32.decoder._lent
    assert f32.decoder._idle is not None
    assert run(f32, None, PROMPT, 9).ids == expected


def test_nothing_of_a_broken_request_reaches_the_next(f32):
    expected = run(f32, None, PROMPT, 9).ids
    weight = f32.weights.layers[1].qkv
    whole = weight.clone()
    weight.fill_(float("nan"))
    with pytest.raises(NonFiniteLogits):
        run(f32, None, PROMPT, 9)
    weight.copy_(whole)
    assert run(f32, None, PROMPT, 9).ids == expected


def test_memory_full_of_nan_is_cleared_first(f32):
    expected = run(f32, None, PROMPT, 9).ids
    f32.decoder._idle.cache.pairs.fill_(float("nan"))
    assert run(f32, None, PROMPT, 9).ids == expected


def test_damage_behind_a_stop_id_is_not_looked_at(f32):
    f32.config = msgspec.structs.replace(f32.config, eos_token_ids=(9,))
    calls = iter([9, None, None, None])

    def step(_model, _state, _length):
        wanted = next(calls)
        logits = torch.zeros(517) if wanted else torch.full((517,), float("nan"))
        logits[9] = 1 if wanted else float("nan")
        return logits

    found = run(f32, Decoder(step=step, read_every=4), PROMPT, 12, ignore_eos=False)
    assert (found.finish_reason, found.stop_id, len(found.ids)) == ("stop", 9, 1)


def test_error_names_the_position(f32):
    calls = iter([0.0, 0.0, float("nan"), 0.0])
    decoder = Decoder(step=lambda *_: torch.full((517,), next(calls)), read_every=4)
    with pytest.raises(NonFiniteLogits) as caught:
        run(f32, decoder, PROMPT, 12)
    assert caught.value.position == len(PROMPT) + 2
    assert decoder._idle is None
    assert not decoder._lent


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_unloading_ends_requests_under_way_and_frees_their_memory(tied, temperature):
    with Device(0, "cpu") as device:
        model = SafeTensorsCudaModel.from_safetensors(tied.path, device)
        request = GenerationRequest(PROMPT, 50, temperature=temperature, ignore_eos=True)
        _, ids = generate(model, request)
        next(ids)
        (state,) = model.decoder._lent
        pairs = weakref.ref(state.cache)
        model.unload()
        assert pairs() is None
        with pytest.raises(ClosedHandle):
            list(ids)
        assert model.decoder._idle is None


def test_dropped_model_is_freed_at_once(tied, cpu):
    model = SafeTensorsCudaModel.from_safetensors(tied.path, cpu)
    run(model, None, PROMPT, 5)
    before, held, gone = cpu.live_bytes, model.weights.nbytes, weakref.ref(model)
    del model
    assert gone() is None
    assert cpu.live_bytes == before - held


def test_graphs_need_cuda(tied, cpu):
    with pytest.raises(InvalidArgument, match="CUDA"):
        SafeTensorsCudaModel.from_safetensors(tied.path, cpu, graphs=True)
    assert not SafeTensorsCudaModel.from_safetensors(tied.path, cpu).decoder.graphs


@pytest.mark.parametrize("change", [{"read_every": 0}, {"first_bucket": 0}])
def test_senseless_decoders_are_refused(change):
    with pytest.raises(InvalidArgument):
        Decoder(**change)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 12])
def test_a_padded_prompt_gives_the_logits_of_the_bare_one_and_leaves_nothing_to_the_next(f32, monkeypatch, length):
    prompt = (PROMPT * 2)[:length]
    with Decoder().begin(f32, prompt, 40, None) as decoding:
        expected, following = decoding.logits.clone(), run(f32, Decoder(), prompt, 20).ids
    begin = DecodeState.__init__

    def with_room_for_a_prompt(self, *arguments):
        begin(self, *arguments)
        self.prompt = torch.full((16,), 99)

    monkeypatch.setattr(DecodeState, "__init__", with_room_for_a_prompt)
    decoder = Decoder()
    for _ in range(2):
        with decoder.begin(f32, prompt, 40, None) as decoding:
            assert (decoding.logits - expected).abs().max() < 2e-5
            assert decoding._state.prompt[length : -(-length // 8) * 8].sum() == 0
        assert run(f32, decoder, prompt, 20).ids == following
