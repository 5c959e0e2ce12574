import json

import numpy as np
import pytest
from safetensors import numpy as official_numpy

from conformance.corpus.safetensors.builder import (
    DTYPE_BITS,
    Layout,
    Style,
    Tensor,
    as_written,
    byte_count,
    document,
    escaped,
    json_string,
)
from conformance.corpus.safetensors.classes import RandomSource, changed_ranges, plain
from conformance.corpus.safetensors.oracle import official

ARRAYS = {
    "w.half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "b": np.arange(5, dtype=np.float32),
    "flag": np.array([1], np.uint8),
    "ids": np.arange(4, dtype=np.int64),
    "größe": np.array(3, np.float32),
}
NAMES = {"float16": "F16", "float32": "F32", "uint8": "U8", "int64": "I64"}


@pytest.mark.parametrize("metadata", [None, {"format": "np"}, {"a": 'quote " and \\ and\n'}])
def test_plain_file_is_byte_for_byte_the_official_writers(metadata):
    tensors = [Tensor(n, NAMES[str(a.dtype)], a.shape, a.tobytes()) for n, a in ARRAYS.items()]
    layout = Layout(as_written(tensors), metadata=None if metadata is None else tuple(metadata.items()))
    assert document(layout).encode() == official_numpy.save(ARRAYS, metadata)


def test_drawn_plain_file_is_padded_aligned_and_read_back():
    base = plain(RandomSource(7), least=3)
    length = int.from_bytes(base.data[:8], "little")
    assert length % 8 == 0
    for tensor in base.contents.tensors.values():
        assert tensor.begin % (DTYPE_BITS[tensor.dtype] // 8) == 0
    assert official(base.data).contents.tensors.keys() == base.contents.tensors.keys()


@pytest.mark.parametrize("text", ["", "plain", 'q"\\', "\n\t\r\b\f\0\x1f", "größe 重み 🧮", "/\x7f"])
def test_json_string_is_read_back_in_both_spellings(text):
    assert json.loads(json_string(text)) == text
    assert json.loads(json_string(text, ascii_only=True)) == text
    assert json_string(text, ascii_only=True).isascii()
    assert json.loads(f'"{escaped(text)}"') == text


def test_payload_order_moves_bytes_and_not_names():
    tensors = (Tensor("a", "U8", (1,), b"a"), Tensor("b", "U8", (2,), b"bb"))
    layout = Layout(tensors, payload_order=(1, 0))
    parts = document(layout)
    assert parts.buffer == b"bba"
    assert [member.key for member in parts.members] == ['"a"', '"b"']
    assert layout.contents().tensors["a"].begin == 2


def test_style_spaces_every_level():
    parts = document(Layout((Tensor("a", "U8", (1,), b"a"),)))
    text = type(parts)(parts.members, parts.buffer, style=Style(", ", ": ", "\n")).json()
    assert text == '{\n"a": {\n"dtype": "U8", "shape": [1], "data_offsets": [0,1]\n}\n}'


def test_six_bit_elements_fill_whole_bytes_or_are_refused():
    assert byte_count("F6_E2M3", (4,)) == 3
    with pytest.raises(ValueError, match="whole bytes"):
        byte_count("F6_E2M3", (3,))


def test_changed_ranges_mark_what_differs_and_nothing_else():
    control = (16).to_bytes(8, "little") + b'{"a":1}         ' + b"payload!"
    assert changed_ranges(control, control) == ()
    assert changed_ranges(control, control[:-1]) == ((31, 31),)
    assert changed_ranges(control, control[:13] + b"2" + control[14:]) == ((13, 14),)
    longer = (18).to_bytes(8, "little") + b'{"a":1}  xx       ' + b"payload!"
    assert changed_ranges(control, longer) == ((0, 1), (17, 19))
    flipped = control[:7] + b"\x01" + control[8:]
    assert changed_ranges(control, flipped) == ((7, 8),)
