import hashlib

import numpy as np
import pytest
from safetensors.numpy import load_file

from conformance.corpus import geometry
from conformance.corpus.cache import ContentChanged, cache_root
from conformance.corpus.checkpoint import read_json
from conformance.corpus.geometry import GAINS, QWEN2_5_1_5B, SEED, geometry_checkpoint
from conformance.corpus.goldens import load_goldens
from conformance.corpus.seeded_weights import from_bf16, qwen2_plans, seeded_pieces, to_bf16
from conformance.corpus.weights_file import read_tensors, write_weights

MINIATURE = QWEN2_5_1_5B | {
    "hidden_size": 96,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "vocab_size": 50_000,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_shapes_are_those_of_qwen2_5_1_5b():
    plans = qwen2_plans(QWEN2_5_1_5B)
    assert len(plans) == 338
    assert sum(plan.nbytes for plan in plans.values()) == 1_543_714_304 * 4
    assert plans["model.layers.27.self_attn.k_proj.weight"].shape == (256, 1536)
    assert plans["model.embed_tokens.weight"].shape == (151936, 1536)


def test_threads_do_not_change_the_bytes(tmp_path):
    plans = qwen2_plans(MINIATURE)
    digests = set()
    for threads in (1, 3):
        write_weights(tmp_path / "w", plans, seeded_pieces(plans, GAINS, SEED), threads)
        digests.add(hashlib.sha256((tmp_path / "w").read_bytes()).hexdigest())
    assert digests == {"9117bf9e380609e7b1bc77a0361603b5cf0114f1eea25a759e8d577a46e59447"}


def test_bf16_is_the_rounding_of_f32():
    full = load_file(geometry_checkpoint("F32", MINIATURE) / "model.safetensors")
    half = geometry_checkpoint("BF16", MINIATURE)
    assert read_json(half / "config.json")["torch_dtype"] == "bfloat16"
    torch = pytest.importorskip("torch")
    for name, dtype, bits in read_tensors(half / "model.safetensors"):
        assert dtype == "BF16"
        expected = torch.from_numpy(full[name]).to(torch.bfloat16).view(torch.uint16).numpy()
        assert np.array_equal(bits, expected), name


def test_rounding_is_to_nearest_even_as_torch_has_it():
    torch = pytest.importorskip("torch")
    bits = np.random.default_rng(0).integers(0, 1 << 32, 100_000, dtype=np.uint32)
    edges = np.uint32([0x3F808000, 0x3F818000, 0x3F807FFF, 0x7F7FFFFF, 0x80000000, 1, 0x807FFFFF])
    values = np.concatenate([bits, edges]).view(np.float32)
    values = values[np.isfinite(values)]
    expected = torch.from_numpy(values).to(torch.bfloat16)
    assert np.array_equal(to_bf16(values), expected.view(torch.uint16).numpy())
    assert np.array_equal(from_bf16(to_bf16(values)), expected.float().numpy())


def test_no_two_tensors_or_blocks_share_a_stream():
    weights = load_file(geometry_checkpoint("F32", MINIATURE) / "model.safetensors")
    embedding = weights["model.embed_tokens.weight"].reshape(-1)
    block = 1 << 22
    assert embedding.size > block
    assert not np.array_equal(embedding[: embedding.size - block], embedding[block:])
    heads = {name: values.reshape(-1)[:64].tobytes() for name, values in weights.items()}
    assert len(set(heads.values())) == len(heads)


def test_second_call_finds_the_first():
    place = geometry_checkpoint("F32", MINIATURE)
    before = (place / "model.safetensors").stat().st_mtime_ns
    assert geometry_checkpoint("F32", MINIATURE) == place
    assert (place / "model.safetensors").stat().st_mtime_ns == before
    assert geometry_checkpoint("F32", MINIATURE, seed=1) != place


def test_other_numbers_than_the_pinned_ones_are_refused(monkeypatch):
    monkeypatch.setattr(geometry, "QWEN2_5_1_5B", MINIATURE)
    with pytest.raises(ContentChanged, match="F32"):
        geometry_checkpoint()
    assert not [path for path in cache_root().iterdir() if path.is_dir()]


def test_shipped_goldens_vary_and_cover_the_ends_of_the_vocabulary():
    goldens = load_goldens(geometry.GOLDENS)
    assert goldens.run.vocab_size == QWEN2_5_1_5B["vocab_size"]
    for case in goldens.run.cases:
        assert len(case.ids) == 32
        assert len(set(case.ids)) > 20
    assert {0, 151935} <= set(goldens.case("ids_first_and_last").prompt_ids)
    assert len(goldens.forced("forced_64").positions) == 64
