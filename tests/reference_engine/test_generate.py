"""Generation: stopping, sampling, limits, and the padded part of the vocabulary."""

from __future__ import annotations

import dataclasses
import itertools
import math

import msgspec
import pytest
import torch

from reference_engine.decode import Decoder
from reference_engine.engine import Engine
from reference_engine.errors import ContextTooLong, InvalidArgument, NonFiniteLogits
from reference_engine.generate import GenerationRequest, generate
from reference_engine.model import SafeTensorsCudaModel

PROMPT = [5, 9, 33, 210]


@pytest.fixture(scope="module")
def engine(tied, cpu):
    return Engine.load(tied.path, cpu)


@pytest.fixture
def model(tied, cpu):
    return SafeTensorsCudaModel.from_safetensors(tied.path, cpu)


def ids_of(model, **options):
    return model.generate(GenerationRequest(PROMPT, options.pop("max_tokens", 24), **options)).ids


def set_eos(model, *eos):
    model.config = msgspec.structs.replace(model.config, eos_token_ids=eos)


def decoder_of(logits):
    """A decoder whose every step gives these logits."""
    return Decoder(step=lambda _model, _state, _length: logits.clone())


def scripted(*ids, size=517):
    """A decoder that wants these ids one after another, and the last for ever."""
    script = itertools.chain(ids, itertools.repeat(ids[-1]))

    def step(_model, _state, _length):
        logits = torch.zeros(size)
        logits[next(script)] = 1
        return logits

    return Decoder(step=step)


def test_every_stop_id_stops_and_is_not_emitted(model):
    first = ids_of(model, ignore_eos=True, max_tokens=1)
    for eos in ((77,), (511, 77), (77, 511)):
        set_eos(model, *eos)
        outcome, ids = generate(model, GenerationRequest(PROMPT, 24), decoder=scripted(40, 41, 77, 42))
        assert list(ids) == outcome.ids == [*first, 40, 41]
        assert (outcome.finish_reason, outcome.stop_id) == ("stop", 77)


def test_stop_id_at_once_gives_no_ids(model):
    (first,) = ids_of(model, ignore_eos=True, max_tokens=1)
    set_eos(model, first)
    outcome = model.generate(GenerationRequest(PROMPT, 24))
    assert (outcome.ids, outcome.finish_reason, outcome.stop_id) == ([], "stop", first)
    assert len(model.generate(GenerationRequest(PROMPT, 24, ignore_eos=True)).ids) == 24


def test_ids_that_are_no_stop_ids_do_not_stop(model):
    set_eos(model, 1)
    first = ids_of(model, ignore_eos=True, max_tokens=1)
    outcome, ids = generate(model, GenerationRequest(PROMPT, 6), decoder=scripted(2, 0, 400, 12, 1))
    assert list(ids) == [*first, 2, 0, 400, 12]
    assert (outcome.finish_reason, outcome.stop_id) == ("stop", 1)


def test_length_is_the_other_reason_and_positions_are_counted(model):
    outcome = model.generate(GenerationRequest(PROMPT, 7, ignore_eos=True))
    assert (outcome.finish_reason, outcome.stop_id, len(outcome.ids)) == ("length", None, 7)
    assert outcome.positions == len(PROMPT) + 6


def test_no_tokens_wanted_none_given(model):
    outcome = model.generate(GenerationRequest(PROMPT, 0))
    assert (outcome.ids, outcome.finish_reason, outcome.positions) == ([], "length", 0)


def test_lowest_id_wins_among_equals(model):
    flat = decoder_of(torch.ones(517))
    _, ids = generate(model, GenerationRequest(PROMPT, 3, ignore_eos=True), decoder=flat)
    assert list(ids)[1:] == [0, 0]


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_padded_ids_are_never_produced(model, temperature):
    logits = torch.zeros(517)
    logits[400:] = 50.0
    request = GenerationRequest(PROMPT, 40, temperature=temperature, ignore_eos=True)
    _, ids = generate(model, request, id_limit=400, decoder=decoder_of(logits))
    assert max(list(ids)[1:]) < 400


def test_engine_knows_the_tokenizers_limit(engine):
    assert engine.tokenizer.id_limit <= 400 < engine.model.config.vocab_size
    result = engine.infer(GenerationRequest(PROMPT, 64, temperature=9.0, seed=1, ignore_eos=True))
    assert max(result.ids) < engine.tokenizer.id_limit


def test_sampling_is_repeatable_by_seed_and_varies_with_it(model):
    options = {"temperature": 1.5, "ignore_eos": True}
    assert ids_of(model, seed=3, **options) == ids_of(model, seed=3, **options)
    assert len({tuple(ids_of(model, seed=seed, **options)) for seed in range(4)}) == 4
    assert ids_of(model, seed=-(2**70), **options)


def test_tiny_top_p_and_tiny_temperature_are_greedy(model):
    greedy = ids_of(model, ignore_eos=True)
    assert ids_of(model, temperature=1.0, top_p=1e-9, ignore_eos=True) == greedy
    assert ids_of(model, temperature=1e-6, ignore_eos=True) == greedy


def test_sampling_follows_the_probabilities(model):
    logits = torch.full((517,), -math.inf)
    logits[7], logits[9] = math.log(0.75), math.log(0.25)
    request = GenerationRequest(PROMPT, 1501, temperature=1.0, ignore_eos=True)
    _, ids = generate(model, request, decoder=decoder_of(logits))
    drawn = list(ids)[1:]
    assert set(drawn) == {7, 9}
    assert abs(drawn.count(7) / len(drawn) - 0.75) < 0.05


def test_prompt_of_all_positions_yields_one_token_and_a_longer_one_none(model):
    outcome = model.generate(GenerationRequest([1] * 2048, 10, ignore_eos=True))
    assert (len(outcome.ids), outcome.finish_reason) == (1, "length")
    with pytest.raises(ContextTooLong) as caught:
        model.generate(GenerationRequest([1] * 2049, 10))
    assert (caught.value.tokens, caught.value.limit) == (2049, 2048)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt_ids": []},
        {"prompt_ids": [517]},
        {"prompt_ids": [-1]},
        {"max_tokens": -1},
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_p": math.nan},
    ],
)
def test_malformed_requests_are_refused(model, change):
    request = dataclasses.replace(GenerationRequest(PROMPT, 4), **change)
    with pytest.raises(InvalidArgument):
        model.generate(request)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_an_error(model, temperature, value):
    logits = torch.zeros(517)
    logits[3] = value
    request = GenerationRequest(PROMPT, 4, temperature=temperature, ignore_eos=True)
    _, ids = generate(model, request, decoder=decoder_of(logits))
    with pytest.raises(NonFiniteLogits):
        list(ids)


def test_requests_leave_no_trace(engine):
    request = GenerationRequest(PROMPT, 30, ignore_eos=True)
    first = engine.infer(request).ids
    live = engine.model.device.live_bytes
    engine.infer(GenerationRequest([1, 2], 90, temperature=1.0, ignore_eos=True))
    assert engine.infer(request).ids == first
    assert engine.infer(GenerationRequest(PROMPT + PROMPT, 1)).prompt_tokens == 8
    assert engine.model.device.live_bytes == live


def test_streamed_text_is_the_text(engine):
    pieces = []
    result = engine.infer(GenerationRequest(engine.raw_prompt("hello"), 40, ignore_eos=True), pieces.append)
    assert result.text.startswith("".join(pieces).rstrip("\N{REPLACEMENT CHARACTER}"))
    assert not result.used_gpu


def test_empty_prompt_needs_a_bos(engine, tied, cpu):
    with pytest.raises(InvalidArgument, match="empty"):
        engine.infer(GenerationRequest(engine.raw_prompt(""), 4))
    other = Engine.load(tied.path, cpu)
    other.model.config = msgspec.structs.replace(other.model.config, bos_token_id=0)
    assert other.raw_prompt("") == [0]
    assert other.infer(GenerationRequest(other.raw_prompt(""), 4, ignore_eos=True)).prompt_tokens == 1
