import json
import os
import shutil

import pytest

from conformance.corpus.checkpoint import CheckpointInvalid, file_sha256, fingerprint, read_json, weight_files
from conformance.corpus.models import RANDOM


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(RANDOM, tmp_path / "model")


def test_fingerprint_does_not_depend_on_the_place_or_the_goldens(copy):
    for path in copy.glob("goldens.*"):
        path.unlink()
    assert fingerprint(copy) == fingerprint(RANDOM)


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"])
def test_fingerprint_depends_on_every_side_file(copy, name):
    (copy / name).write_text((copy / name).read_text() + " ")
    assert fingerprint(copy).sha256 != fingerprint(RANDOM).sha256


def test_one_changed_bit_of_the_weights_is_noticed(copy):
    before = fingerprint(copy)
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    os.utime(copy / "model.safetensors", ns=(1, 1))
    assert fingerprint(copy).sha256 != before.sha256


def test_hash_of_a_replaced_file_is_taken_again(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"a")
    first = file_sha256(path)
    path.write_bytes(b"bb")
    assert file_sha256(path) != first


@pytest.mark.parametrize("content", ["{", "[]", "\x00", "[" * 100_000])
def test_json_that_is_no_object_is_a_typed_error(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(CheckpointInvalid, match=r"config\.json"):
        read_json(path)


def test_directory_without_weights_or_config_is_refused(tmp_path, copy):
    with pytest.raises(CheckpointInvalid, match=r"no \.safetensors"):
        weight_files(tmp_path)
    (copy / "config.json").unlink()
    with pytest.raises(CheckpointInvalid, match="config"):
        fingerprint(copy)


@pytest.mark.parametrize("shard", ["../model.safetensors", "missing.safetensors", "/etc/passwd", 3])
def test_index_may_name_only_files_beside_it(copy, shard):
    (copy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(CheckpointInvalid, match="index"):
        weight_files(copy)
