"""APR read strictly: every byte is under a checksum, and with right checksums every rule is still a rule."""

from __future__ import annotations

import json
import struct
import time
import tracemalloc
import zlib
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_files import METADATA, NAMES, apr, entry

from reference_engine.errors import EngineError, InvalidFile, InvalidModel, UnsupportedDtype
from reference_engine.formats.apr_file import AprFile

PROPERTY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def opened(tmp_path, raw):
    path = tmp_path / "m.apr"
    path.write_bytes(raw)
    return AprFile(path)


def test_a_valid_file_gives_its_tensors_and_side_files(tmp_path):
    data = bytes(range(48)) + bytes(16) + b"\1" * 16
    with opened(tmp_path, apr(data=data)) as file:
        assert list(file.tensors) == NAMES
        assert file.read(NAMES[0]) == bytes(range(48))
        assert file.read(NAMES[1]) == b"\1" * 16
        config = file.side_files.read_json("config.json")
    assert config["rope_theta"] == 1e6
    assert config["eos_token_id"] == [2]
    assert config["torch_dtype"] == "float32"


def test_cut_anywhere_it_is_invalid(tmp_path):
    raw = apr()
    for length in range(len(raw)):
        with pytest.raises(InvalidFile):
            opened(tmp_path, raw[:length])


def test_any_flipped_bit_is_invalid(tmp_path):
    raw = apr()
    for place in range(len(raw)):
        spoilt = bytearray(raw)
        spoilt[place] ^= 1 << (place % 8)
        with pytest.raises(InvalidFile):
            opened(tmp_path, bytes(spoilt))


BROKEN = {
    "unsorted": apr(entries=entry(NAMES[1], shape=(4,), offset=64) + entry(NAMES[0])),
    "twice": apr(entries=entry(NAMES[0]) + entry(NAMES[0], offset=64)),
    "unknown dtype": apr(entries=entry(NAMES[0], dtype=77) + entry(NAMES[1], shape=(4,), offset=64)),
    "size": apr(entries=entry(NAMES[0], size=44) + entry(NAMES[1], shape=(4,), offset=64)),
    "unaligned": apr(entries=entry(NAMES[0]) + entry(NAMES[1], shape=(4,), offset=52)),
    "past the end": apr(entries=entry(NAMES[0]) + entry(NAMES[1], shape=(4,), offset=128)),
    "overlap": apr(entries=entry(NAMES[0]) + entry(NAMES[1], shape=(4,), offset=0)),
    "huge offset": apr(entries=entry(NAMES[0]) + entry(NAMES[1], shape=(4,), offset=2**64 - 64)),
    "huge shape": apr(entries=entry(NAMES[0], shape=(2**40, 2**40), size=2**63)),
    "dimensions": apr(entries=entry(NAMES[0], shape=(1,) * 9)),
    "long name": apr(entries=entry("x" * 257) + entry(NAMES[1], shape=(4,), offset=64)),
    "name not UTF-8": apr(entries=entry(b"\xff\xfe") + entry(NAMES[1], shape=(4,), offset=64), count=2),
    "fewer tensors than entries": apr(count=1),
    "more tensors than entries": apr(count=3),
    "absurd count": apr(count=2**32 - 1),
    "compressed": apr(flags=0x401),
    "encrypted": apr(flags=0x404),
    "sharded": apr(flags=0x410),
    "column-major": apr(flags=0xC00),
    "no layout": apr(flags=0x200),
    "unknown flag": apr(flags=0x8400),
    "metadata not JSON": apr(metadata=b"{"),
    "metadata a list": apr(metadata=b"[]"),
    "metadata deep": apr(metadata=b"[" * 100_000),
    "metadata not UTF-8": apr(metadata=b'{"a":"\xff"}'),
    "no rope_theta": apr(metadata={"rope_theta": None}),
    "no rope_type": apr(metadata={"rope_type": None}),
    "adjacent pairs": apr(metadata={"rope_type": 0}),
    "other family": apr(metadata={"architecture": "mamba"}),
    "no pre": apr(metadata={"tokenizer.pre_type": None}),
    "no types": apr(metadata={"tokenizer.token_type": None}),
    "types that are flags": apr(metadata={"tokenizer.token_type": [True, 1, 1]}),
    "eos without a token": apr(metadata={"tokenizer.eos_token_id": 3}),
}


@pytest.mark.parametrize("case", sorted(BROKEN))
def test_with_right_checksums_a_broken_rule_is_still_refused(case, tmp_path):
    with pytest.raises(InvalidFile) as caught:
        opened(tmp_path, BROKEN[case])
    assert caught.value.format == "APR"
    assert "SafeTensors" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"tokenizer.merges": ["a b c"]}, {"tokenizer.token_type": [1]}, {"tokenizer.pre_type": "new"}]
)
def test_a_vocabulary_that_makes_no_sense_is_refused(change, tmp_path):
    with pytest.raises(InvalidModel):
        opened(tmp_path, apr(metadata=change))


@pytest.mark.parametrize("code", [8, 9, 12, 14, 128, 129])
def test_quantized_tensors_are_named(code, tmp_path):
    with pytest.raises(UnsupportedDtype) as caught:
        opened(tmp_path, apr(entries=entry(NAMES[0], dtype=code) + entry(NAMES[1], shape=(4,), offset=64)))
    assert caught.value.tensor == NAMES[0]


@pytest.mark.parametrize("magic", [b"APR1", b"APR2", b"APRN"])
def test_other_versions_are_refused(magic, tmp_path):
    with pytest.raises(InvalidFile, match=r"not those of APR 2\.0"):
        opened(tmp_path, magic + apr()[4:])


def resealed(raw):
    header = raw[:40] + struct.pack("<I", zlib.crc32(raw[44:64], zlib.crc32(raw[:40]))) + raw[44:64]
    body = header + raw[64:-4]
    return body + struct.pack("<I", zlib.crc32(body))


@PROPERTY
@given(place=st.integers(0, 63), value=st.integers(0, 255))
def test_any_header_under_right_checksums_gives_a_file_or_a_typed_error(place, value, tmp_path):
    raw = bytearray(apr())
    raw[place] = value
    with suppress(InvalidFile):
        opened(tmp_path, resealed(bytes(raw))).close()


@PROPERTY
@given(junk=st.binary(max_size=200), count=st.integers(0, 5))
def test_any_index_gives_a_file_or_a_typed_error(junk, count, tmp_path):
    with suppress(InvalidFile, UnsupportedDtype):
        opened(tmp_path, apr(entries=junk, count=count)).close()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@PROPERTY
@given(key=st.sampled_from(sorted(METADATA)), value=VALUES)
def test_any_metadata_value_gives_a_checkpoint_or_a_typed_error(key, value, tmp_path):
    from reference_engine.config import read_config
    from reference_engine.tokenizer import Tokenizer

    try:
        with opened(tmp_path, apr(metadata={key: value})) as file:
            read_config(file.side_files)
            if "tokenizer.json" in file.side_files:
                Tokenizer(file.side_files)
    except EngineError:
        pass


def test_sixteen_megabytes_of_metadata_stay_within_bounds(tmp_path):
    raw = apr(metadata=json.dumps(METADATA).encode()[:-1] + b',"x":[' + b"[]," * 5_000_000 + b"0]}")
    begun = time.monotonic()
    with opened(tmp_path, raw):
        pass
    assert time.monotonic() - begun < 20
    tracemalloc.start()
    with pytest.raises(InvalidFile, match="metadata of"):
        opened(tmp_path, apr(metadata=b" " * (17 << 20)))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_cut_after_it_was_opened_it_is_an_error_and_not_a_signal(tmp_path):
    with opened(tmp_path, apr()) as file:
        (tmp_path / "m.apr").write_bytes(b"")
        with pytest.raises(InvalidFile, match="cut short"):
            file.read(NAMES[0])
