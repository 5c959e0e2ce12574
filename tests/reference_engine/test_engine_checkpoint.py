"""Single files, shards and their index, and what an index must not reach."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from reference_engine.checkpoint import Checkpoint
from reference_engine.errors import FileNotFound, InvalidModel, MissingTensor
from reference_engine.model import SafeTensorsCudaModel


def shard(source, target, parts=3):
    tensors = load_file(source / "model.safetensors")
    weight_map = {}
    for part in range(parts):
        name = f"model-{part + 1:05}-of-{parts:05}.safetensors"
        mine = {key: tensors[key] for key in list(tensors)[part::parts]}
        save_file(mine, target / name)
        weight_map |= dict.fromkeys(mine, name)
    for name in ("config.json", "generation_config.json"):
        (target / name).write_text((source / name).read_text())
    write_index(target, weight_map)
    return weight_map


def write_index(directory, weight_map):
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_sharded_model_computes_what_the_single_file_computes(tied, cpu, tmp_path):
    shard(tied.path, tmp_path)
    expected = SafeTensorsCudaModel.from_safetensors(tied.path, cpu).logits([1, 2, 3])
    for path in (tmp_path, tmp_path / "model.safetensors.index.json"):
        assert torch.equal(SafeTensorsCudaModel.from_safetensors(path, cpu).logits([1, 2, 3]), expected)


def test_symlinked_shards_load(tied, tmp_path):
    store, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    store.mkdir()
    snapshot.mkdir()
    shard(tied.path, store)
    for file in store.iterdir():
        (snapshot / file.name).symlink_to(file)
    with Checkpoint(snapshot) as checkpoint:
        assert len(checkpoint.tensors) == len(load_file(tied.path / "model.safetensors"))


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "a/../../x", "", ".", "..", "x\0.safetensors", 7, None]
)
def test_shard_outside_the_directory_is_refused(tmp_path, name):
    write_index(tmp_path, {"a": name})
    with pytest.raises((InvalidModel, FileNotFound)) as caught:
        Checkpoint(tmp_path)
    assert name == "." or isinstance(caught.value, InvalidModel)


def test_missing_shard_is_named(tied, tmp_path):
    shard(tied.path, tmp_path)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFound, match="model-00002-of-00003"):
        Checkpoint(tmp_path)


def test_tensor_absent_from_its_shard_is_named(tied, tmp_path):
    weight_map = shard(tied.path, tmp_path)
    write_index(tmp_path, weight_map | {"ghost": "model-00001-of-00003.safetensors"})
    with pytest.raises(MissingTensor, match="ghost"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map":{}}', '{"weight_map":[]}', "[" * 100_000, '{"a":NaN}', "\xff"]
)
def test_malformed_index_is_refused(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidModel):
        Checkpoint(tmp_path)


def test_empty_directory_and_absent_path(tmp_path):
    with pytest.raises(FileNotFound, match=r"model\.safetensors"):
        Checkpoint(tmp_path)
    with pytest.raises(FileNotFound):
        Checkpoint(tmp_path / "absent")
