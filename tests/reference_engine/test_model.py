"""The forward pass against transformers, on random checkpoints with every part switched on."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference_engine.device import Device
from reference_engine.errors import (
    ClosedHandle,
    ContextTooLong,
    InvalidArgument,
    MissingTensor,
    ShapeMismatch,
    UnsupportedDtype,
)
from reference_engine.generate import GenerationRequest
from reference_engine.model import SafeTensorsCudaModel

PROMPT = [5, 400, 33, 7, 91, 250, 11, 12, 300, 64, 5, 5]


@pytest.fixture(scope="module")
def model(checkpoint, cpu):
    return SafeTensorsCudaModel.from_safetensors(checkpoint.path, cpu)


def reference_logits(reference, ids):
    with torch.no_grad():
        return reference(torch.tensor([ids])).logits[0].float()


def copy_with(source, target, edit):
    shutil.copytree(source, target, dirs_exist_ok=True)
    tensors = load_file(target / "model.safetensors")
    edit(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def test_logits_equal_those_of_transformers(checkpoint, model):
    expected = reference_logits(checkpoint.reference, PROMPT)
    found = model.logits(PROMPT)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert (found - expected).abs().max() < 1e-4


def test_last_n_logits_are_the_last_rows_of_all(model):
    assert torch.allclose(model.logits(PROMPT, last=3), model.logits(PROMPT)[-3:], atol=1e-5)


def test_greedy_ids_equal_those_of_transformers(checkpoint, model):
    outcome = model.generate(GenerationRequest(PROMPT, 80, ignore_eos=True))
    with torch.no_grad():
        expected = checkpoint.reference.generate(
            torch.tensor([PROMPT]),
            max_new_tokens=80,
            min_new_tokens=80,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    assert outcome.ids == expected[0, len(PROMPT) :].tolist()
    assert outcome.positions == len(PROMPT) + 79


def test_prompts_longer_than_a_chunk_are_exact(checkpoint, model):
    ids = [(7 * i * i + 3 * i) % 500 for i in range(1500)]
    expected = reference_logits(checkpoint.reference, ids)
    assert (model.logits(ids) - expected).abs().max() < 1e-4


def test_steps_equal_teacher_forcing(model):
    outcome = model.generate(GenerationRequest(PROMPT, 20, ignore_eos=True))
    forced = model.logits(PROMPT + outcome.ids[:-1], last=20).argmax(dim=-1)
    assert forced.tolist() == outcome.ids


def test_same_bits_every_time_and_after_other_requests(checkpoint, model):
    first = model.logits(PROMPT)
    model.generate(GenerationRequest([3, 4, 5], 30, ignore_eos=True))
    again = SafeTensorsCudaModel.from_safetensors(checkpoint.path, model.device)
    assert torch.equal(first, model.logits(PROMPT))
    assert torch.equal(first, again.logits(PROMPT))


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_half_precision_follows_transformers(checkpoint, cpu, dtype):
    model = SafeTensorsCudaModel.from_safetensors(checkpoint.path, cpu, dtype)
    assert {s.dtype for s in model.weights.storages.values()} == {dtype}
    expected = reference_logits(checkpoint.reference, PROMPT)
    found = model.logits(PROMPT)
    assert torch.nn.functional.cosine_similarity(found, expected, dim=-1).min() > 0.999


def test_mixed_dtypes_compute_in_f32(tied, cpu, tmp_path):
    def halve(tensors):
        for name in tensors:
            if "mlp" in name:
                tensors[name] = tensors[name].bfloat16()

    path = copy_with(tied.path, tmp_path / "mixed", halve)
    model = SafeTensorsCudaModel.from_safetensors(path, cpu)
    assert {s.dtype for s in model.weights.storages.values()} == {"F32"}
    halves = load_file(path / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    assert torch.equal(model.weights.storages["model.layers.1.mlp.up_proj.weight"].tensor, halves.float())


def test_loaded_weights_are_the_files_bits(checkpoint, model):
    tensors = load_file(checkpoint.path / "model.safetensors")
    assert model.weights.storages.keys() == tensors.keys()
    for name, storage in model.weights.storages.items():
        assert torch.equal(storage.tensor, tensors[name])
    assert model.weights.nbytes == sum(tensor.nbytes for tensor in tensors.values())


def test_q_k_v_lie_adjacently_so_that_the_product_needs_no_copy(model):
    layer = model.weights.layers[1]
    prefix = "model.layers.1.self_attn"
    # SAFETY: the address is only compared, never followed.
    assert layer.qkv.data_ptr() == model.weights.storages[f"{prefix}.q_proj.weight"].tensor.data_ptr()
    assert layer.qkv.is_contiguous()


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.norm.weight",
        "model.layers.2.self_attn.k_proj.bias",
        "model.layers.0.self_attn.o_proj.weight",
        "model.layers.1.mlp.gate_proj.weight",
        "model.layers.1.post_attention_layernorm.weight",
    ],
)
def test_missing_tensor_is_named(tied, cpu, tmp_path, name):
    path = copy_with(tied.path, tmp_path / "missing", lambda tensors: tensors.pop(name))
    before = cpu.live_bytes
    with pytest.raises(MissingTensor) as caught:
        SafeTensorsCudaModel.from_safetensors(path, cpu)
    assert caught.value.tensor == name
    assert cpu.live_bytes == before


def test_untied_model_needs_its_head(tied, cpu, tmp_path):
    path = copy_with(tied.path, tmp_path / "headless", lambda _: None)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(MissingTensor, match="lm_head"):
        SafeTensorsCudaModel.from_safetensors(path, cpu)


def test_head_in_the_file_of_a_tied_model_is_used(tied, cpu, tmp_path):
    def add_head(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    path = copy_with(tied.path, tmp_path / "both", add_head)
    model = SafeTensorsCudaModel.from_safetensors(path, cpu)
    assert torch.equal(model.logits(PROMPT), SafeTensorsCudaModel.from_safetensors(tied.path, cpu).logits(PROMPT))


def test_wrong_shape_is_refused_with_both_shapes(tied, cpu, tmp_path):
    name = "model.layers.1.mlp.down_proj.weight"

    def cut(tensors):
        tensors[name] = tensors[name][:, :-1].contiguous()

    with pytest.raises(ShapeMismatch) as caught:
        SafeTensorsCudaModel.from_safetensors(copy_with(tied.path, tmp_path / "cut", cut), cpu)
    assert (caught.value.expected, caught.value.found) == ((48, 80), (48, 79))


def test_extra_tensors_are_let_be(tied, cpu, tmp_path):
    def add(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4, dtype=torch.float64)

    model = SafeTensorsCudaModel.from_safetensors(copy_with(tied.path, tmp_path / "extra", add), cpu)
    assert "model.layers.0.self_attn.rotary_emb.inv_freq" not in model.weights.storages


def test_weight_of_another_dtype_is_named(tied, cpu, tmp_path):
    def widen(tensors):
        tensors["model.norm.weight"] = tensors["model.norm.weight"].double()

    with pytest.raises(UnsupportedDtype) as caught:
        SafeTensorsCudaModel.from_safetensors(copy_with(tied.path, tmp_path / "f64", widen), cpu)
    assert (caught.value.tensor, caught.value.dtype) == ("model.norm.weight", "F64")


def test_every_layer_and_bias_matters(tied, cpu, tmp_path):
    model = SafeTensorsCudaModel.from_safetensors(tied.path, cpu)
    before = model.logits(PROMPT)
    for name in ("model.layers.2.mlp.down_proj.weight", "model.layers.0.self_attn.k_proj.bias"):
        path = copy_with(tied.path, tmp_path / name, lambda tensors, name=name: tensors[name].zero_())
        changed = SafeTensorsCudaModel.from_safetensors(path, cpu).logits(PROMPT)
        assert not torch.allclose(before, changed, atol=1e-3), name


@pytest.mark.parametrize("ids", [[], [-1], [517], [5, 10**12]])
def test_ids_outside_the_vocabulary_are_refused(tied, cpu, ids):
    with pytest.raises(InvalidArgument):
        SafeTensorsCudaModel.from_safetensors(tied.path, cpu).logits(ids)


def test_more_ids_than_positions_are_refused(tied, cpu):
    model = SafeTensorsCudaModel.from_safetensors(tied.path, cpu)
    with pytest.raises(ContextTooLong) as caught:
        model.logits([1] * 2049)
    assert (caught.value.tokens, caught.value.limit) == (2049, 2048)


def test_unloaded_model_is_closed_and_its_account_is_settled(tied):
    with Device(0, "cpu") as device:
        model = SafeTensorsCudaModel.from_safetensors(tied.path, device)
        assert device.live_bytes == model.weights.nbytes > 0
        assert not model.used_gpu
        model.unload()
        model.unload()
        assert (device.live_bytes, device.live_count) == (0, 0)
        with pytest.raises(ClosedHandle):
            model.logits([1])
