"""GGUF read within bounds: what the gguf library reads is read alike, what it would choke on is a typed error."""

from __future__ import annotations

import struct
import time
import tracemalloc

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_files import gguf_header, gguf_string, write_gguf

from conformance.corpus.models import RANDOM
from conformance.corpus.variants import derive, read_checkpoint
from reference_engine.errors import EngineError, InvalidFile, InvalidModel, UnsupportedDtype
from reference_engine.formats.gguf_file import GgufFile
from reference_engine.formats.gguf_walk import walk_header

PROPERTY = settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
ARCHITECTURE = gguf_string("general.architecture") + struct.pack("<I", 8) + gguf_string("qwen2")


def opened(tmp_path, raw):
    path = tmp_path / "hostile.gguf"
    path.write_bytes(raw)
    return GgufFile(path)


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "m.gguf").read_bytes()


def test_a_valid_file_gives_its_tensors_and_side_files(raw, tmp_path):
    with opened(tmp_path, raw) as file:
        assert file.read("model.embed_tokens.weight") == np.arange(12, dtype="<f4").tobytes()
        assert file.tensors["model.embed_tokens.weight"].shape == (3, 4)
        config = file.side_files.read_json("config.json")
    assert config["rope_theta"] == 1e6
    assert config["rms_norm_eps"] == 1e-6
    assert config["tie_word_embeddings"] is True


@pytest.mark.parametrize("variant", ["gguf-f32", "gguf-bf16"])
def test_the_gguf_library_reads_the_same(variant):
    path = derive(RANDOM, variant)
    library = GGUFReader(path)
    with GgufFile(path) as file:
        header = walk_header(file.path, file.size, file.read_into)
        assert [(t.name, t.offset + header.data_start) for t in header.tensors] == [
            (t.name, t.data_offset) for t in library.tensors
        ]
        for key, value in header.fields.items():
            expected = library.fields[key].contents()
            assert (value.tolist() if isinstance(value, memoryview) else value) == expected
        values = read_checkpoint(RANDOM)
        if variant == "gguf-f32":
            assert {n: bytes(file.read(n)) for n in file.tensors} == {n: v.tobytes() for n, (_, v) in values.items()}


def test_cut_anywhere_it_is_invalid(raw, tmp_path):
    # The writer pads the last tensor; without that padding the file is still whole.
    for length in range(len(raw) - 16):
        with pytest.raises(InvalidFile):
            opened(tmp_path, raw[:length])


@PROPERTY
@given(place=st.integers(0, 900), value=st.integers(0, 255))
def test_any_changed_byte_gives_a_file_or_a_typed_error(place, value, raw, tmp_path):
    from reference_engine.config import read_config
    from reference_engine.tokenizer import Tokenizer

    spoilt = bytearray(raw)
    spoilt[place % len(raw)] = value
    try:
        with opened(tmp_path, bytes(spoilt)) as file:
            read_config(file.side_files)
            if "tokenizer.json" in file.side_files:
                Tokenizer(file.side_files)
            for name in file.tensors:
                file.read(name)
    except EngineError:
        pass


@PROPERTY
@given(junk=st.binary(max_size=120), pairs=st.integers(0, 3), tensors=st.integers(0, 3))
def test_any_bytes_after_the_magic_give_a_typed_error(junk, pairs, tensors, tmp_path):
    with pytest.raises(InvalidFile):
        opened(tmp_path, gguf_header(junk, pairs, tensor_count=tensors))


def pair(key, kind, value=b""):
    return gguf_string(key) + struct.pack("<I", kind) + value


def one(pair_bytes):
    return gguf_header(ARCHITECTURE + pair_bytes, 2)


def tensor(name="token_embd.weight", dims=(4, 3), kind=0, offset=0):
    sizes = struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
    return gguf_string(name) + sizes + struct.pack("<IQ", kind, offset)


BROKEN = {
    "empty": b"GGUF",
    "version 1": gguf_header(version=1),
    "version 4": gguf_header(version=4),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
    "absurd tensor count": gguf_header(tensor_count=2**63),
    "absurd pair count": gguf_header(pair_count=2**63),
    "no architecture": gguf_header(),
    "huge string": one(pair("k", 8, struct.pack("<Q", 2**62))),
    "string beyond the file": one(pair("k", 8, struct.pack("<Q", 999) + b"x")),
    "huge key": gguf_header(struct.pack("<Q", 2**64 - 1), 1),
    "string not UTF-8": one(pair("k", 8, gguf_string(b"\xff"))),
    "unknown type": one(pair("k", 13)),
    "boolean of 2": one(pair("k", 7, b"\2")),
    "huge array": one(pair("k", 9, struct.pack("<IQ", 4, 2**60))),
    "huge array of strings": one(pair("k", 9, struct.pack("<IQ", 8, 2**60))),
    "nested array": one(pair("k", 9, struct.pack("<IQ", 9, 1) * 1000)),
    "array of unknown": one(pair("k", 9, struct.pack("<IQ", 99, 1))),
    "key twice": gguf_header(ARCHITECTURE * 2, 2),
    "alignment 0": one(pair("general.alignment", 4, struct.pack("<I", 0))),
    "alignment 24": one(pair("general.alignment", 4, struct.pack("<I", 24))),
    "alignment as text": one(pair("general.alignment", 8, gguf_string("32"))),
    "unknown tensor": gguf_header(ARCHITECTURE, 1, tensor("rope_freqs.weight"), 1) + bytes(999),
    "tensor twice": gguf_header(ARCHITECTURE, 1, tensor() * 2, 2) + bytes(999),
    "five dimensions": gguf_header(ARCHITECTURE, 1, tensor(dims=(1,) * 5), 1) + bytes(999),
    "overflowing shape": gguf_header(ARCHITECTURE, 1, tensor(dims=(2**40, 2**40)), 1) + bytes(999),
    "unknown ggml type": gguf_header(ARCHITECTURE, 1, tensor(kind=999), 1) + bytes(999),
    "offset beyond the file": gguf_header(ARCHITECTURE, 1, tensor(offset=2**40), 1) + bytes(999),
    "offset unaligned": gguf_header(ARCHITECTURE, 1, tensor(offset=1), 1) + bytes(999),
    "offset overflowing": gguf_header(ARCHITECTURE, 1, tensor(offset=2**64 - 32), 1) + bytes(999),
    "no data": gguf_header(ARCHITECTURE, 1, tensor(), 1),
    "other architecture": gguf_header(pair("general.architecture", 8, gguf_string("mamba")), 1),
}


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_a_broken_rule_is_refused(case, tmp_path):
    with pytest.raises(InvalidFile) as caught:
        opened(tmp_path, BROKEN[case])
    assert caught.value.format == "GGUF"


def test_quantized_tensors_are_named(tmp_path):
    with pytest.raises(UnsupportedDtype) as caught:
        opened(tmp_path, gguf_header(ARCHITECTURE, 1, tensor(kind=3), 1) + bytes(999))
    assert caught.value.tensor == "model.embed_tokens.weight"


@pytest.mark.parametrize(
    "key", ["rope.freq_base", "attention.layer_norm_rms_epsilon", "block_count", "attention.head_count"]
)
def test_a_key_that_others_default_in_silence_must_be_there(key, tmp_path):
    with pytest.raises(InvalidFile, match=key):
        GgufFile(write_gguf(tmp_path / "m.gguf", without=(key,)))


@pytest.mark.parametrize(
    "changed",
    [
        {"vocab_size": 4},
        {"rope.freq_base": 0.0},
        {"rope.freq_base": float("nan")},
        {"rope.freq_base": 3.4028234e38},
        {"block_count": 0},
        {"rope.scaling.factor": 4.0},
        {"attention.key_length": 8, "attention.value_length": 4},
    ],
)
def test_keys_that_contradict_or_ask_for_more_are_refused(changed, tmp_path):
    with pytest.raises(InvalidFile):
        GgufFile(write_gguf(tmp_path / "m.gguf", **changed))


def test_many_strings_are_refused_before_they_fill_memory(tmp_path):
    count = 3 << 20
    raw = one(pair("k", 9, struct.pack("<IQ", 8, count) + bytes(8 * count)))
    begun = time.monotonic()
    tracemalloc.start()
    with pytest.raises(InvalidFile, match="exceeds the limit"):
        opened(tmp_path, raw)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()
    assert time.monotonic() - begun < 5


def test_a_header_beyond_the_limit_is_refused(tmp_path):
    path = tmp_path / "hostile.gguf"
    with path.open("wb") as file:
        file.write(one(pair("k", 8, struct.pack("<Q", 1 << 30))))
        file.truncate(2 << 30)
    tracemalloc.start()
    with pytest.raises(InvalidFile, match="exceeds the limit"):
        GgufFile(path)
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_a_merge_that_makes_no_sense_is_refused(raw, tmp_path):
    with pytest.raises(InvalidModel, match="merge"):
        opened(tmp_path, raw.replace(b"a b", b"aab"))


def test_cut_after_it_was_opened_it_is_an_error_and_not_a_signal(raw, tmp_path):
    with opened(tmp_path, raw) as file:
        (tmp_path / "hostile.gguf").write_bytes(b"")
        with pytest.raises(InvalidFile, match="cut short"):
            file.read("model.norm.weight")
