import json
import shutil

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from conformance.corpus.checkpoint import CheckpointInvalid, read_json, weight_files
from conformance.corpus.gguf_layout import deinterleave, interleave
from conformance.corpus.gguf_reading import GgufUnsupported, checkpoint_from_gguf
from conformance.corpus.models import RANDOM
from conformance.corpus.variants import EMBEDDING, HEAD, VARIANTS, derive, read_checkpoint
from conformance.corpus.weights_file import write_tensors


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def values_of(directory):
    return {name: (dtype, values.tobytes()) for name, (dtype, values) in read_checkpoint(directory).items()}


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_same_bytes_wherever_it_is_derived(variant, tmp_path, monkeypatch):
    first = derive(RANDOM, variant)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    second = derive(RANDOM, variant)
    assert first != second
    files = [first] if first.is_file() else sorted(first.iterdir())
    for path in files:
        assert path.read_bytes() == (second if first.is_file() else second / path.name).read_bytes()


def test_f32_of_f32_and_shards_hold_the_same_bits():
    assert values_of(derive(RANDOM, "f32")) == values_of(RANDOM)
    sharded = derive(RANDOM, "sharded")
    assert len(weight_files(sharded)) == 3
    assert values_of(sharded) == values_of(RANDOM)
    index = read_json(sharded / "model.safetensors.index.json")
    assert index["weight_map"].keys() == read_checkpoint(RANDOM).keys()
    assert index["metadata"]["total_size"] == sum(v.nbytes for _, v in read_checkpoint(RANDOM).values())


@pytest.mark.parametrize("variant", ["f16", "bf16"])
def test_reduced_precision_is_torchs_rounding_and_widens_exactly(variant):
    torch = pytest.importorskip("torch")
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}[variant]
    reduced = derive(RANDOM, variant)
    assert read_json(reduced / "config.json")["torch_dtype"] == str(dtype).removeprefix("torch.")
    widened = read_checkpoint(derive(reduced, "f32"))
    for name, (_, values) in read_checkpoint(RANDOM).items():
        expected = torch.from_numpy(values.copy()).to(dtype).float().numpy()
        assert np.array_equal(widened[name][1], expected), name
    assert values_of(derive(derive(reduced, "f32"), variant)) == values_of(reduced)


def test_untied_head_is_the_embedding():
    untied = read_checkpoint(derive(RANDOM, "untied"))
    assert np.array_equal(untied[HEAD][1], untied[EMBEDDING][1])
    assert read_json(derive(RANDOM, "untied") / "config.json")["tie_word_embeddings"] is False
    with pytest.raises(CheckpointInvalid, match="already"):
        derive(derive(RANDOM, "untied"), "untied")


def test_padding_grows_and_shrinks():
    embedding = read_checkpoint(RANDOM)[EMBEDDING][1]
    extended = read_checkpoint(derive(RANDOM, "extended"))[EMBEDDING][1]
    assert np.array_equal(extended[:448], embedding)
    assert not extended[448:].any()
    assert len(extended) == read_json(derive(RANDOM, "extended") / "config.json")["vocab_size"] == 512
    trimmed = read_checkpoint(derive(RANDOM, "trimmed"))[EMBEDDING][1]
    assert np.array_equal(trimmed, embedding[:416])
    both = derive(derive(RANDOM, "untied"), "extended")
    assert len(read_checkpoint(both)[HEAD][1]) == 512


@pytest.mark.parametrize("variant", ["sharded", "untied", "extended", "trimmed", "f32"])
def test_transformers_generates_the_same_from_each(variant):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    ids = torch.tensor([[10, 20, 30, 300, 40]])
    logits = []
    for directory in (RANDOM, derive(RANDOM, variant)):
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        with torch.inference_mode():
            logits.append(model(ids).logits[..., :416])
    assert torch.allclose(logits[0], logits[1], atol=1e-5)


@pytest.mark.parametrize("variant", ["gguf-f32", "gguf-f16", "gguf-bf16"])
def test_gguf_holds_the_bits_of_the_same_dtype(variant):
    reader = GGUFReader(derive(RANDOM, variant))
    same = read_checkpoint(derive(derive(RANDOM, variant.removeprefix("gguf-")), "f32"))
    exact = read_checkpoint(RANDOM)
    assert len(reader.tensors) == len(same)
    by_name = {tensor.name: tensor for tensor in reader.tensors}
    embedding = by_name["token_embd.weight"]
    assert embedding.tensor_type.name == variant.removeprefix("gguf-").upper()
    assert np.array_equal(dequantize(embedding.data, embedding.tensor_type), same[EMBEDDING][1])
    bias = by_name["blk.2.attn_q.bias"]
    assert np.array_equal(bias.data, exact["model.layers.2.self_attn.q_proj.bias"][1])


def test_gguf_says_what_llama_cpp_would_silently_default():
    fields = {name: field.contents() for name, field in GGUFReader(derive(RANDOM, "gguf-f32")).fields.items()}
    assert fields["qwen2.rope.freq_base"] == 1e6
    assert fields["qwen2.attention.head_count_kv"] == 2
    assert fields["tokenizer.ggml.pre"] == "qwen2"
    assert fields["tokenizer.ggml.add_bos_token"] is False
    assert fields["tokenizer.ggml.eos_token_id"] == 415
    assert fields["tokenizer.ggml.tokens"][415:418] == ["<|im_end|>", "[PAD416]", "[PAD417]"]
    assert fields["tokenizer.ggml.token_type"][415:418] == [3, 5, 5]
    assert "im_start" in fields["tokenizer.chat_template"]


@pytest.fixture
def llama(tmp_path):
    """The random checkpoint as a llama: no biases, keys and queries permuted in GGUF."""
    made = shutil.copytree(RANDOM, tmp_path / "llama")
    tensors = {name: values for name, (_, values) in read_checkpoint(RANDOM).items() if "proj.bias" not in name}
    write_tensors(made / "model.safetensors", tensors)
    config = read_json(made / "config.json") | {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (made / "config.json").write_text(json.dumps(config))
    return made


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_gguf_and_back_is_the_same_checkpoint(architecture, llama, tmp_path):
    source = llama if architecture == "llama" else RANDOM
    back = tmp_path / "back"
    back.mkdir()
    checkpoint_from_gguf(derive(source, "gguf-f32"), back)
    assert values_of(back) == values_of(source)
    before, after = read_json(source / "config.json"), read_json(back / "config.json")
    common = before.keys() & after.keys()
    assert {key: after[key] for key in common} == {key: before[key] for key in common}
    ours, theirs = (read_json(path / "tokenizer.json")["model"] for path in (source, back))
    assert {token: ours["vocab"][token] for token in ours["vocab"]}.items() <= theirs["vocab"].items()
    assert ours["merges"] == theirs["merges"]


def test_llama_rows_are_reordered_and_qwen2_rows_are_not(llama):
    for source, heads in ((llama, 2), (RANDOM, 0)):
        reader = GGUFReader(derive(source, "gguf-f32"))
        stored = next(tensor.data for tensor in reader.tensors if tensor.name == "blk.0.attn_k.weight")
        original = read_checkpoint(source)["model.layers.0.self_attn.k_proj.weight"][1]
        assert np.array_equal(stored, interleave(original, heads) if heads else original)


def test_interleaving_brings_the_two_halves_of_a_head_together():
    rows = np.arange(8)[:, None]
    assert interleave(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    assert np.array_equal(deinterleave(interleave(rows, 2), 2), rows)


def test_unknown_architecture_is_refused(llama):
    config = read_json(llama / "config.json") | {"model_type": "mamba"}
    (llama / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointInvalid, match="mamba"):
        derive(llama, "gguf-f32")


def test_gguf_without_tokenizer_is_not_read_as_one(tmp_path, llama):
    for path in llama.glob("tokenizer*"):
        path.unlink()
    path = derive(llama, "gguf-f32")
    with pytest.raises((GgufUnsupported, KeyError)):
        checkpoint_from_gguf(path, tmp_path)
