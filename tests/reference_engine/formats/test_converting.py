"""Three formats, one checkpoint: equal bits and equal logits both ways, across files written by either side."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from conformance.corpus.apr_reading import AprBroken, read_apr
from conformance.corpus.gguf_reading import checkpoint_from_gguf
from conformance.corpus.models import FIXTURE, RANDOM
from conformance.corpus.variants import VARIANTS, derive, read_checkpoint
from reference_engine.checkpoint import Checkpoint
from reference_engine.engine import Engine
from reference_engine.errors import InvalidArgument, InvalidFile, InvalidModel, WriteFailed
from reference_engine.files import SafeTensorsFile
from reference_engine.formats.apr_writer import write_apr
from reference_engine.formats.converting import convert
from reference_engine.formats.described import describe
from reference_engine.formats.gguf_writer import write_gguf
from reference_engine.formats.opening import open_tensors

MESSAGES = [{"role": "user", "content": "hello, où est 2+2?"}]
IDS = [3, 14, 15, 92, 65]


def bits(path):
    with Checkpoint(path) as checkpoint:
        return {n: (t.entry.dtype, t.entry.shape, bytes(t.file.read(n))) for n, t in checkpoint.tensors.items()}


def same_answers(first, second, cpu):
    one, other = (Engine.load(path, cpu, "F32") for path in (first, second))
    assert torch.equal(one.model.logits(IDS), other.model.logits(IDS))
    assert one.render(MESSAGES) == other.render(MESSAGES)
    assert one.tokenizer.id_limit == other.tokenizer.id_limit
    assert one.model.config.eos_token_ids == other.model.config.eos_token_ids


@pytest.fixture(params=["untied", "tied", "llama"])
def source(request, make, tmp_path):
    """A checkpoint whose rotary frequencies are unscaled, with a tokenizer split as GPT-2 does."""
    (tmp_path / "source").mkdir()
    path = make(request.param, tmp_path / "source")
    config = json.loads((path / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 50_000.0}
    (path / "config.json").write_text(json.dumps(config))
    return path


@pytest.mark.parametrize("suffix", [".apr", ".gguf"])
def test_converted_it_has_the_same_bits_and_answers(source, suffix, tmp_path, cpu):
    convert(source, tmp_path / f"m{suffix}")
    assert bits(tmp_path / f"m{suffix}") == bits(source)
    same_answers(source, tmp_path / f"m{suffix}", cpu)


def test_there_and_back_through_both_formats(source, tmp_path, cpu):
    convert(source, tmp_path / "one.gguf")
    convert(tmp_path / "one.gguf", tmp_path / "two.apr")
    convert(tmp_path / "two.apr", tmp_path / "three.gguf")
    assert bits(tmp_path / "three.gguf") == bits(source)
    same_answers(source, tmp_path / "three.gguf", cpu)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_reduced_precision_keeps_its_bits(dtype, tmp_path):
    source = derive(FIXTURE, dtype)
    convert(source, tmp_path / "m.apr")
    assert bits(tmp_path / "m.apr") == bits(source)
    convert(source, tmp_path / "m.gguf")
    matrices = {name: value for name, value in bits(source).items() if len(value[1]) > 1}
    assert {name: bits(tmp_path / "m.gguf")[name] for name in matrices} == matrices


@pytest.mark.parametrize("variant", ["apr", "gguf-f32", "gguf-bf16"])
def test_files_of_the_other_side_answer_alike(variant, cpu):
    same_answers(FIXTURE, derive(FIXTURE, variant), cpu)


def test_the_other_sides_strict_reader_reads_what_is_written(source, tmp_path):
    convert(source, tmp_path / "m.apr")
    contents = read_apr(tmp_path / "m.apr")
    assert contents.tensors == bits(source)
    assert contents.metadata["rope_theta"] == 50_000.0
    (tmp_path / "m.apr").write_bytes((tmp_path / "m.apr").read_bytes()[:-2])
    with pytest.raises(AprBroken):
        read_apr(tmp_path / "m.apr")


def test_the_other_sides_gguf_reader_reads_what_is_written(tmp_path):
    back = tmp_path / "back"
    back.mkdir()
    convert(derive(FIXTURE, "f32"), tmp_path / "m.gguf")
    checkpoint_from_gguf(tmp_path / "m.gguf", back)
    expected = read_checkpoint(derive(FIXTURE, "f32"))
    found = read_checkpoint(back)
    assert {n: v.tobytes() for n, (_, v) in found.items()} == {n: v.tobytes() for n, (_, v) in expected.items()}


def test_the_other_side_writes_a_tied_head_out():
    assert "lm_head.weight" in bits(derive(FIXTURE, "apr"))
    assert "lm_head.weight" not in bits(FIXTURE)


def test_llama_cpp_answers_from_our_gguf_what_it_answers_from_theirs(tmp_path):
    pytest.importorskip("xllamacpp")
    from conformance.corpus.fixture.peer import ask, start
    from conformance.corpus.goldens import load_goldens

    convert(FIXTURE, tmp_path / "m.gguf")
    cases = [case for case in load_goldens(FIXTURE).run.cases if case.name in {"sum_question", "hello", "capital"}]
    server = start(tmp_path / "m.gguf")
    assert cases
    assert [ask(server, case, list(case.prompt_ids))[0] for case in cases] == [case.text for case in cases]


def test_scaled_rotary_frequencies_are_refused(make, tmp_path):
    with pytest.raises(InvalidModel, match="scaled"):
        convert(make("llama", tmp_path), tmp_path / "m.gguf")


def test_a_tokenizer_that_cannot_be_said_is_refused(tmp_path):
    made = shutil.copytree(RANDOM, tmp_path / "made")
    with pytest.raises(InvalidModel, match="byte-level"):
        convert(made, tmp_path / "m.apr")


def test_a_tensor_that_gguf_cannot_name_is_refused_and_nothing_is_left(source, tmp_path):
    tensors = load_file(source / "model.safetensors")
    save_file(tensors | {"visual.patch.weight": torch.zeros(2, 2)}, source / "model.safetensors")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InvalidModel, match="visual"):
        convert(source, tmp_path / "m.gguf")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("target", "error"), [("m.bin", InvalidArgument), ("m", InvalidArgument), ("absent/m.apr", WriteFailed)]
)
def test_targets_that_cannot_be(target, error, tmp_path):
    with pytest.raises(error):
        convert(FIXTURE, tmp_path / target)


def apr(*arguments):
    command = [sys.executable, "-m", "reference_engine.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout.split()


def test_the_command_line_converts_and_runs(tmp_path):
    made = tmp_path / "m.apr"
    assert apr("convert", FIXTURE, made) == (0, [])
    code, words = apr("run", made, "2+2=", "--no-gpu")
    assert (code, "4" in words) == (0, True)
    assert apr("convert", FIXTURE, tmp_path / "m.bin") == (4, [])


@pytest.mark.parametrize("variant", ["apr", "gguf-f32"])
def test_content_decides_but_a_name_may_not_lie(variant, tmp_path):
    named = tmp_path / "weights"
    shutil.copy(derive(RANDOM, variant), named)
    with open_tensors(named) as file:
        assert file.format == variant.split("-")[0].upper()
    with pytest.raises(InvalidFile, match="content is"):
        open_tensors(named.rename(tmp_path / "model.safetensors"))


def test_a_safetensors_header_whose_length_spells_apr_is_safetensors(tmp_path):
    length = int.from_bytes(b"APR\0", "little")
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{}".ljust(length))
    with open_tensors(path) as file:
        assert isinstance(file, SafeTensorsFile)


def test_every_variant_that_is_one_file_is_covered():
    assert {name for name in VARIANTS if derive(RANDOM, name).is_file()} == {"apr", "gguf-f32", "gguf-f16", "gguf-bf16"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architectures": ["MistralForCausalLM"], "model_type": "mistral"}, "another family"),
        ({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}, "another family"),
        ({"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}, "sliding windows"),
    ],
)
def test_what_the_formats_have_no_words_for_is_refused(make, changes, told, tmp_path):
    config = json.loads((make("tied", tmp_path) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | changes))
    for suffix in (".apr", ".gguf"):
        with pytest.raises(InvalidModel, match=told):
            convert(tmp_path, tmp_path / f"m{suffix}")
        assert not (tmp_path / f"m{suffix}").exists()


@pytest.mark.parametrize("write", [write_apr, write_gguf])
def test_a_llama_with_biases_is_neither_written_nor_read_without_them(make, write, tmp_path):
    config = json.loads((make("llama", tmp_path) / "config.json").read_text())
    rope = {"rope_type": "default", "rope_theta": 5e4}
    (tmp_path / "config.json").write_text(json.dumps(config | {"rope_parameters": rope}))
    with Checkpoint(tmp_path) as checkpoint:
        plain = describe(checkpoint)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.0.self_attn.v_proj.bias"] = torch.ones(32)
    save_file(tensors, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        with pytest.raises(InvalidModel, match="biases of a Llama"):
            describe(checkpoint)
        write(tmp_path / "m.bin", checkpoint, plain)
    with pytest.raises(InvalidFile, match=r"v_proj\.bias"):
        Checkpoint(tmp_path / "m.bin")
