"""transformers as a real process: the fixture's goldens, which came from it, and each refusal by its kind."""

import shutil

import numpy as np
import pytest

from conformance.corpus.goldens import load_goldens
from conformance.corpus.models import resolve_model
from conformance.manifest import load_manifest
from conformance.protocol.client import Engine
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import (
    ChatMessage,
    Decode,
    Encode,
    ErrorKind,
    Generate,
    Handle,
    Logits,
    ModelLoad,
    Render,
)
from conformance.protocol.tensors import read_tensor, to_numpy
from conformance.trial.launching import launch_in

pytest.importorskip("transformers")
pytestmark = pytest.mark.slow
FIXTURE = resolve_model("fixture").directory


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with Engine(launch_in(load_manifest("transformers"), tmp_path_factory.mktemp("exchange"))) as started:
        yield started


@pytest.fixture(scope="module")
def model(engine):
    return engine.call("model.load", ModelLoad(str(FIXTURE / "model.safetensors"), "cpu", "F32"))


@pytest.fixture(scope="module")
def goldens():
    return load_goldens(FIXTURE)


def kind_of(engine, method, params):
    with pytest.raises(EngineRefused) as refused:
        engine.call(method, params)
    return refused.value.kind


def test_it_decides_as_the_golden_run(engine, model, goldens):
    cases = sorted(goldens.run.cases, key=lambda one: len(one.prompt_ids) + one.max_tokens)[:6]
    told = [
        engine.call("generate", Generate(model.handle, one.max_tokens, prompt_ids=list(one.prompt_ids), repeat=2))
        for one in cases
    ]

    assert [answer.ids for answer in told] == [list(case.ids) for case in cases]
    assert [answer.stop_id for answer in told] == [case.stop_id for case in cases]
    assert [answer.finish_reason for answer in told] == ["length" if one.stop_id is None else "stop" for one in cases]
    assert not any(answer.used_gpu for answer in told)


def test_what_it_says_of_a_model_is_what_the_checkpoint_says(engine, model, goldens):
    listed = engine.call("model.tensors", Handle(model.handle)).tensors

    assert not model.used_gpu
    assert model.type_name.startswith("transformers.")
    assert model.storage_type_name == "torch.nn.parameter.Parameter"
    assert model.config.dtype == "float32"
    assert {"F32"} == {entry.dtype for entry in listed}
    assert [entry.name for entry in listed if "embed" in entry.name] == ["model.embed_tokens.weight"]
    case = goldens.run.cases[0]
    data = engine.call("model.logits", Logits(model.handle, list(case.prompt_ids), last=1))
    logits = to_numpy(data, read_tensor(engine.launch.run_dir, data))
    assert data.shape == [1, model.config.vocab_size]
    assert int(np.argmax(logits)) == case.decisions[0]


def test_text_messages_and_ids_are_one_prompt(engine, model):
    rendered = engine.call("chat.render", Render(model.handle, [ChatMessage("user", "2+2=")]))
    ids = engine.call("tokenizer.encode", Encode(model.handle, "2+2=")).ids
    by_messages = engine.call("generate", Generate(model.handle, 4, messages=[ChatMessage("user", "2+2=")]))
    by_ids = engine.call("generate", Generate(model.handle, 4, prompt_ids=rendered.ids))
    by_text = engine.call("generate", Generate(model.handle, 4, prompt="2+2="))

    assert engine.call("tokenizer.decode", Decode(model.handle, ids)).text == "2+2="
    assert by_messages == by_ids
    assert (by_text.prompt_tokens, by_ids.prompt_tokens) == (len(ids), len(rendered.ids))


def test_what_is_drawn_follows_the_seed_and_the_end_can_be_ignored(engine, model):
    def drawn(seed):
        asked = Generate(model.handle, 24, prompt="hello", temperature=2.0, seed=seed, ignore_eos=True)
        return engine.call("generate", asked).ids

    first, again, other = drawn(1), drawn(1), drawn(2)

    assert first == again != other
    assert len(first) == 24


def test_what_a_request_lacks_is_an_invalid_argument(engine, model):
    wrong = (
        Generate(model.handle, 4),
        Generate(model.handle, 4, prompt="a", prompt_ids=[1]),
        Generate(model.handle, 4, prompt_ids=[]),
        Generate(model.handle, 4, prompt="a", repeat=0),
        Generate(model.handle, 0, prompt="a"),
    )
    assert {kind_of(engine, "generate", one) for one in wrong} == {ErrorKind.INVALID_ARGUMENT}


def test_a_checkpoint_that_is_not_there_or_broken_is_told_by_its_kind(engine, tmp_path):
    broken, bare = shutil.copytree(FIXTURE, tmp_path / "broken"), tmp_path / "bare"
    bare.mkdir()
    (broken / "model.safetensors").write_bytes(b"\xff" * 64)

    assert kind_of(engine, "model.load", ModelLoad(str(tmp_path / "none"), "cpu")) == ErrorKind.FILE_NOT_FOUND
    assert kind_of(engine, "model.load", ModelLoad(str(broken), "cpu")) == ErrorKind.INVALID_FILE
    assert kind_of(engine, "model.load", ModelLoad(str(bare), "cpu")) == ErrorKind.INVALID_MODEL
    assert kind_of(engine, "model.load", ModelLoad(str(FIXTURE), "cuda:7")) == ErrorKind.DEVICE_NOT_FOUND


def test_a_model_that_was_unloaded_is_gone(engine):
    loaded = engine.call("model.load", ModelLoad(str(FIXTURE), "cpu"))
    engine.call("model.unload", Handle(loaded.handle))

    assert kind_of(engine, "model.tensors", Handle(loaded.handle)) == ErrorKind.CLOSED_HANDLE
