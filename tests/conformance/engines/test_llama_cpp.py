"""llama.cpp as a real process: the fixture's goldens from GGUF, and each refusal by its kind."""

import numpy as np
import pytest

from conformance.corpus.geometry import QWEN2_5_1_5B, geometry_checkpoint
from conformance.corpus.goldens import load_goldens
from conformance.corpus.models import resolve_model
from conformance.corpus.variants import derive
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
from conformance.smoke import smoke
from conformance.trial.launching import launch_in

pytest.importorskip("llama_cpp")
SMALL = QWEN2_5_1_5B | {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    with Engine(launch_in(load_manifest("llama_cpp"), tmp_path_factory.mktemp("exchange"))) as started:
        yield started


@pytest.fixture(scope="module")
def model(engine):
    return engine.call("model.load", ModelLoad(str(resolve_model("fixture").directory), "cpu", "F32"))


@pytest.fixture(scope="module")
def goldens():
    return load_goldens(resolve_model("fixture").directory)


def test_it_passes_smoke(tmp_path):
    assert [step for step in smoke(launch_in(load_manifest("llama_cpp"), tmp_path)) if not step.ok] == []


def test_it_decides_as_the_golden_run(engine, model, goldens):
    cases = goldens.run.cases[:12]
    told = [
        engine.call("generate", Generate(model.handle, one.max_tokens, prompt_ids=list(one.prompt_ids)))
        for one in cases
    ]

    assert [answer.ids for answer in told] == [list(case.ids) for case in cases]
    assert [answer.stop_id for answer in told] == [case.stop_id for case in cases]
    assert {answer.finish_reason for answer in told} <= {"stop", "length"}


def test_its_logits_in_chunks_are_those_of_its_last_position(engine, model, goldens):
    case = max(goldens.run.cases, key=lambda one: len(one.prompt_ids))
    ids = list(case.prompt_ids)
    assert len(ids) > 512
    data = engine.call("model.logits", Logits(model.handle, ids))
    last = engine.call("model.logits", Logits(model.handle, ids, last=1))
    values, alone = (to_numpy(one, read_tensor(engine.launch.run_dir, one)) for one in (data, last))

    assert data.shape == [len(ids), model.config.vocab_size]
    assert np.abs(alone[0] - values[-1]).max() < 1e-4
    assert int(values[-1].argmax()) == case.decisions[0]


def test_a_gguf_file_and_the_directory_it_was_made_of_are_one_model(engine, goldens):
    file = derive(resolve_model("fixture").directory, "gguf-f32")
    loaded = engine.call("model.load", ModelLoad(str(file), "cpu"))
    case = goldens.run.cases[0]
    answer = engine.call("generate", Generate(loaded.handle, case.max_tokens, prompt_ids=list(case.prompt_ids)))
    engine.call("model.unload", Handle(loaded.handle))

    assert answer.ids == list(case.ids)
    assert loaded.config.tie_word_embeddings
    assert not loaded.used_gpu


def test_a_model_without_a_tokenizer_is_asked_by_ids(engine):
    checkpoint = geometry_checkpoint("F32", SMALL)
    loaded = engine.call("model.load", ModelLoad(str(checkpoint), "cpu", "F32"))
    answer = engine.call("generate", Generate(loaded.handle, 6, prompt_ids=[5, 6, 7], ignore_eos=True))
    with pytest.raises(EngineRefused) as refused:
        engine.call("tokenizer.encode", Encode(loaded.handle, "a cat"))
    engine.call("model.unload", Handle(loaded.handle))

    assert (len(answer.ids), answer.text) == (6, "")
    assert refused.value.kind is ErrorKind.INVALID_ARGUMENT


def test_text_goes_through_its_own_tokenizer_and_template(engine, model, goldens):
    case = next(one for one in goldens.run.cases if one.prompt and not one.raw)
    rendered = engine.call("chat.render", Render(model.handle, [ChatMessage("user", case.prompt)]))
    ids = engine.call("tokenizer.encode", Encode(model.handle, "a cat, 3 dogs")).ids

    assert rendered.ids == list(case.prompt_ids)
    assert engine.call("tokenizer.decode", Decode(model.handle, ids)).text == "a cat, 3 dogs"


def test_a_seed_draws_the_same_again_and_ignoring_the_end_decodes_on(engine, model, goldens):
    case = next(one for one in goldens.run.cases if one.stop_id is not None)
    ids = list(case.prompt_ids)
    drawn = [
        engine.call("generate", Generate(model.handle, 8, prompt_ids=ids, temperature=1.5, seed=seed)).ids
        for seed in (3, 3)
    ]
    longer = engine.call("generate", Generate(model.handle, len(case.ids) + 4, prompt_ids=ids, ignore_eos=True))

    assert drawn[0] == drawn[1]
    assert len(longer.ids) == len(case.ids) + 4
    assert longer.stop_id is None


@pytest.mark.parametrize(
    ("request_of", "kind"),
    [
        (lambda model, path: ("model.load", ModelLoad(str(path / "absent"), "cpu")), ErrorKind.FILE_NOT_FOUND),
        (lambda model, path: ("model.load", ModelLoad(str(path), "cpu")), ErrorKind.INVALID_MODEL),
        (lambda model, path: ("model.load", ModelLoad(str(path / "bad.gguf"), "cpu")), ErrorKind.INVALID_MODEL),
        (lambda model, path: ("model.load", ModelLoad(str(path), "cuda:99")), ErrorKind.DEVICE_NOT_FOUND),
        (lambda model, path: ("model.load", ModelLoad(str(path), "tpu")), ErrorKind.DEVICE_NOT_FOUND),
        (lambda model, path: ("generate", Generate(model, 1, prompt_ids=[])), ErrorKind.INVALID_ARGUMENT),
        (lambda model, path: ("generate", Generate(model, 1, prompt_ids=[10**6])), ErrorKind.INVALID_ARGUMENT),
        (lambda model, path: ("generate", Generate(model, 1, prompt_ids=[1] * 9000)), ErrorKind.INVALID_ARGUMENT),
        (lambda model, path: ("generate", Generate(model, 1, prompt_ids=[1], prompt="x")), ErrorKind.INVALID_ARGUMENT),
        (lambda model, path: ("generate", Generate(model, 1, prompt_ids=[1], repeat=0)), ErrorKind.INVALID_ARGUMENT),
        (lambda model, path: ("model.unload", Handle(77)), ErrorKind.CLOSED_HANDLE),
    ],
)
def test_each_refusal_has_its_kind(engine, model, tmp_path, request_of, kind):
    (tmp_path / "bad.gguf").write_bytes(b"GGUF" + b"\xff" * 64)

    with pytest.raises(EngineRefused) as refused:
        engine.call(*request_of(model.handle, tmp_path))

    assert refused.value.kind is kind
