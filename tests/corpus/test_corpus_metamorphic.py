import json

import pytest

from conformance.corpus.safetensors.builder import Layout, Tensor, as_written, byte_count, document
from conformance.corpus.safetensors.classes import filler
from conformance.corpus.safetensors.metamorphic import (
    INDEX,
    VARIANTS,
    WEIGHTS,
    read_checkpoint,
    write_variant,
)
from conformance.corpus.safetensors.oracle import first_difference, official

SHAPES = {"model.embed_tokens.weight": (8, 4), "model.norm.weight": (4,), "model.layers.0.mlp.up_proj.weight": (6, 4)}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    named = {**SHAPES, **{f"model.layers.{i}.bias": (i + 1,) for i in range(6)}}
    tensors = [
        Tensor(name, "BF16", shape, filler(at, byte_count("BF16", shape)))
        for at, (name, shape) in enumerate(named.items())
    ]
    layout = Layout(as_written(tensors), metadata=(("format", "pt"),))
    (directory / WEIGHTS).write_bytes(document(layout).encode())
    (directory / "config.json").write_text("{}")
    return read_checkpoint(directory)


def files_of(directory):
    """What a loader reads: the index's files if there is one, and else the one file."""
    if (directory / INDEX).exists():
        weight_map = json.loads((directory / INDEX).read_text())["weight_map"]
        return weight_map, sorted(set(weight_map.values()))
    return None, [WEIGHTS]


def test_there_are_enough_variants_under_names_of_their_own():
    assert len(VARIANTS) >= 30
    assert len({variant.name for variant in VARIANTS}) == len(VARIANTS)
    assert sum(not variant.adds_tensors for variant in VARIANTS) >= 30


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_variant_holds_the_same_tensors(variant, checkpoint, tmp_path):
    directory = write_variant(variant, checkpoint, tmp_path / "variant")
    weight_map, files = files_of(directory)
    found = {}
    for name in files:
        contents = official((directory / name).read_bytes()).contents
        assert not found.keys() & contents.tensors.keys()
        if weight_map is not None:
            assert all(weight_map[tensor] == name for tensor in contents.tensors)
        found |= contents.tensors
    plain = checkpoint.layout.contents().tensors
    extra = {name for name in found if name not in plain}
    assert bool(extra) == variant.adds_tensors
    for name, tensor in plain.items():
        assert (found[name].dtype, found[name].shape, found[name].payload) == (
            tensor.dtype,
            tensor.shape,
            tensor.payload,
        )
    assert (directory / "config.json").read_text() == "{}"


def test_one_file_variants_differ_in_their_bytes(checkpoint, tmp_path):
    seen = {}
    for variant in VARIANTS:
        directory = write_variant(variant, checkpoint, tmp_path / variant.name)
        if not (directory / INDEX).exists() and not variant.name.startswith("file-"):
            seen.setdefault((directory / WEIGHTS).read_bytes(), []).append(variant.name)
    doubles = [names for names in seen.values() if len(names) > 1]
    assert doubles == []


def test_plain_variant_is_the_file_itself(checkpoint, tmp_path):
    plain = next(variant for variant in VARIANTS if variant.name == "plain")
    directory = write_variant(plain, checkpoint, tmp_path / "plain")
    assert (directory / WEIGHTS).read_bytes() == (checkpoint.directory / WEIGHTS).read_bytes()


@pytest.mark.parametrize("rest", range(1, 8))
def test_header_length_has_the_rest_it_promises(checkpoint, tmp_path, rest):
    variant = next(found for found in VARIANTS if found.name == f"header-mod8-{rest}")
    directory = write_variant(variant, checkpoint, tmp_path / "variant")
    assert int.from_bytes((directory / WEIGHTS).read_bytes()[:8], "little") % 8 == rest


@pytest.mark.parametrize("name", ["file-symlinked", "shards-symlinked", "shards-symlinked-absolute"])
def test_symlinked_files_lie_outside_of_the_directory(checkpoint, tmp_path, name):
    variant = next(found for found in VARIANTS if found.name == name)
    directory = write_variant(variant, checkpoint, tmp_path / "variant")
    links = [path for path in directory.iterdir() if path.is_symlink()]
    assert links
    assert all(link.is_file() and directory not in link.resolve().parents for link in links)


def test_checkpoint_is_read_with_its_metadata(checkpoint):
    assert checkpoint.metadata == (("format", "pt"),)
    written = official((checkpoint.directory / WEIGHTS).read_bytes()).contents
    assert first_difference(checkpoint.layout.contents(), written) == ""
