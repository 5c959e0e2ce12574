"""Each rule of the header at its limit, and the words with which a file that breaks it is refused."""

import gc
import json
from dataclasses import FrozenInstanceError

import pytest

from reference_engine.errors import InvalidFile
from reference_engine.header import DTYPE_BITS, Header, TensorEntry, header_length, parse_header

LARGEST = 2**64 - 1
BITS = {
    **dict.fromkeys(["F4"], 4),
    **dict.fromkeys(["F6_E2M3", "F6_E3M2"], 6),
    **dict.fromkeys(["BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"], 8),
    **dict.fromkeys(["I16", "U16", "F16", "BF16"], 16),
    **dict.fromkeys(["I32", "U32", "F32"], 32),
    **dict.fromkeys(["C64", "F64", "I64", "U64"], 64),
}


def entry(dtype="U8", shape="[2]", offsets="[0,2]", name="a"):
    return f'"{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}'


def parsed(header, data=2):
    raw = header if isinstance(header, bytes) else header.encode()
    return parse_header("the file", raw, 8 + len(raw) + data)


def refused(header, data=2):
    with pytest.raises(InvalidFile) as caught:
        parsed(header, data)
    assert caught.value.path == "the file"
    return caught.value.cause


def prefix(length):
    return length.to_bytes(8, "little")


# --- the length -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 255, 256, 65_536, 100_000_000])
def test_a_length_up_to_the_limit_and_up_to_the_file_is_taken(length):
    assert header_length("f", prefix(length), 8 + length) == length
    assert header_length("f", bytearray(prefix(length)), 9 + length) == length


@pytest.mark.parametrize(
    ("given", "size", "cause"),
    [
        (b"", 0, "0 bytes are too few to hold a header length"),
        (b"1234567", 7, "7 bytes are too few to hold a header length"),
        (prefix(100_000_001), 2**40, "header length 100000001 exceeds the limit of 100000000 bytes"),
        (prefix(LARGEST), 2**40, f"header length {LARGEST} exceeds the limit of 100000000 bytes"),
        (prefix(100), 107, "header length 100 exceeds the file of 107 bytes"),
        (prefix(1), 8, "header length 1 exceeds the file of 8 bytes"),
        (prefix(8), 15, "header length 8 exceeds the file of 15 bytes"),
    ],
)
def test_a_length_beyond_the_limit_or_the_file_is_refused_by_name(given, size, cause):
    with pytest.raises(InvalidFile) as caught:
        header_length("the file", given, size)

    assert (caught.value.path, caught.value.cause) == ("the file", cause)


# --- what a header gives ----------------------------------------------------------------------------------


def test_the_dtypes_of_the_format_have_the_bits_of_their_names():
    assert DTYPE_BITS == BITS


def test_a_header_gives_its_tensors_in_its_own_order_and_where_the_data_starts():
    text = "{" + ",".join([entry(name="b", offsets="[2,4]"), entry(), '"__metadata__":{"k":"v"}']) + "}"

    header = parsed(text, 4)

    assert list(header.tensors) == ["b", "a"]
    assert header.tensors["b"] == TensorEntry("b", "U8", (2,), 2, 4)
    assert [tensor.nbytes for tensor in header.tensors.values()] == [2, 2]
    assert header.metadata == {"k": "v"}
    assert header.data_start == 8 + len(text)


@pytest.mark.parametrize("name", ["", "0", "A", "__", "__metadata", "__metadata__ ", "zz"])
def test_metadata_come_before_any_name_and_after_it(name):
    tensor = entry(name=name)

    for members in ([tensor, '"__metadata__":{"k":"v"}'], ['"__metadata__":{"k":"v"}', tensor]):
        header = parsed("{" + ",".join(members) + "}")
        assert (list(header.tensors), header.metadata) == ([name], {"k": "v"})


def test_space_may_stand_around_every_mark_and_before_the_end():
    header = parsed(
        '{ "b" : '
        + entry(offsets="[2,4]")[4:]
        + " ,\n\t"
        + entry()
        + ' ,\r\n"__metadata__" : { "k" : "v" , "l" : "" } } ',
        4,
    )

    assert (list(header.tensors), header.metadata) == (["b", "a"], {"k": "v", "l": ""})


def test_a_header_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        Header({}, {}, 8).data_start = 9
    assert not hasattr(Header({}, {}, 8), "__dict__")
    with pytest.raises(AttributeError):
        TensorEntry("a", "U8", (), 0, 1).begin = 2


@pytest.mark.parametrize(
    ("shape", "offsets", "data"),
    [
        (f"[0,{LARGEST}]", "[0,0]", 0),
        (f"[{LARGEST},0]", "[0,0]", 0),
        (f"[{2**32},{2**31},0]", "[0,0]", 0),
        ("[0]", "[0,0]", 0),
        ("[]", "[0,1]", 1),
        ("[1,1,1]", "[0,1]", 1),
        ("[3,5]", "[0,15]", 15),
        ("[300]", "[0,300]", 300),
    ],
)
def test_dimensions_up_to_64_bits_are_taken(shape, offsets, data):
    assert parsed("{" + entry(shape=shape, offsets=offsets) + "}", data).tensors["a"].shape == tuple(json.loads(shape))


def test_elements_of_less_than_a_byte_fill_whole_bytes_together():
    assert parsed("{" + entry("F4", "[2,3]", "[0,3]") + "}", 3).tensors["a"].nbytes == 3
    assert parsed("{" + entry("F6_E2M3", "[4]", "[0,3]") + "}", 3).tensors["a"].nbytes == 3


# --- what is refused, and why -----------------------------------------------------------------------------

TWICE = entry() + "," + entry()
ESCAPED = entry() + "," + entry().replace('"a"', '"\\u0061"')


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        ("", "the header does not begin with '{'"),
        (" {}", "the header does not begin with '{'"),
        (b'{"\xff":1}', "the header is not UTF-8 at byte 2"),
        ("{nonsense}", "expected a name and ':' at character 1 of the header"),
        ("{" + entry(), "expected ',' or '}' at character 52 of the header"),
        ("{" + entry() + ",}", "expected a name and ':' at character 53 of the header"),
        ("{" + TWICE + "}", "the name 'a' is given twice"),
        ("{" + ESCAPED + "}", "the name 'a' is given twice"),
        ('{"__metadata__":{},"__metadata__":{}}', "the name '__metadata__' is given twice"),
        ('{"__metadata__":null,"__metadata__":null}', "the name '__metadata__' is given twice"),
        ('{"__metadata__":[]}', "expected '{' at character 16 of the header"),
        ('{"__metadata__":{"a":1}}', "expected a pair of strings in __metadata__ at character 17 of the header"),
        ('{"__metadata__":{"a":"1","a":"2"}}', "metadata key 'a' is given twice"),
        ("{" + entry() + "}\n", "something other than spaces follows the JSON"),
        ("{" + entry() + "} x", "something other than spaces follows the JSON"),
        ('{"\\ud800":1}', "invalid escape in the string before character 10 of the header"),
        ('{"\\x":1}', "invalid escape in the string before character 6 of the header"),
    ],
)
def test_json_that_is_no_header_is_refused_where_it_breaks(header, cause):
    assert refused(header) == cause


FLAT = "is not a flat object of dtype, shape and data_offsets, each once"
EXACTLY = "must have dtype, shape and data_offsets, each exactly once"
LISTS = ": shape must be a list, data_offsets a list of two"


@pytest.mark.parametrize(
    ("header", "cause"),
    [
        ('{"a":null}', FLAT),
        ('{"a":{"dtype":"U8","shape":[2]}}', FLAT),
        ('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"x":1}}', FLAT),
        ('{"a":{"dtype":"U8","shape":[[2]],"data_offsets":[0,2]}}', FLAT),
        ('{"a":{"dtype":"U8","shape":[02],"data_offsets":[0,2]}}', "is not valid JSON"),
        ('{"a":{"dtype":"U8","shape":[2],"offsets":[0,2]}}', EXACTLY),
        ('{"a":{"dtype":"U8","dtype":"U8","data_offsets":[0,2]}}', EXACTLY),
        ("{" + entry("F31") + "}", "has unknown dtype 'F31'"),
        ("{" + entry("u8") + "}", "has unknown dtype 'u8'"),
        ("{" + entry().replace('"U8"', "8") + "}", "has unknown dtype '8'"),
        ("{" + entry(shape="2") + "}", LISTS),
        ("{" + entry(shape="null") + "}", LISTS),
        ("{" + entry(offsets="0") + "}", LISTS),
        ("{" + entry(offsets='"02"') + "}", LISTS),
        ("{" + entry(offsets="[0]") + "}", LISTS),
        ("{" + entry(offsets="[0,2,2]") + "}", LISTS),
        ("{" + entry(offsets="[2,0]") + "}", "has data_offsets [2, 0], not 0 <= begin <= end"),
        ("{" + entry(offsets="[-1,2]") + "}", "has data_offsets [-1, 2], not 0 <= begin <= end"),
        ("{" + entry(offsets="[0,2.0]") + "}", "has data_offsets [0, 2.0], not 0 <= begin <= end"),
        ("{" + entry(offsets="[0.0,2]") + "}", "has data_offsets [0.0, 2], not 0 <= begin <= end"),
        ("{" + entry(offsets="[false,true]") + "}", "has data_offsets [False, True], not 0 <= begin <= end"),
        ("{" + entry(offsets='["0","2"]') + "}", FLAT),
        ("{" + entry(offsets=f"[0,{2**64}]") + "}", f"has data_offsets [0, {2**64}], not 0 <= begin <= end"),
        (
            "{" + entry(offsets=f"[0,{LARGEST}]") + "}",
            f"of U8 [2] needs 16 bits, its offsets span {LARGEST} bytes",
        ),
        ("{" + entry(shape="[-1]") + "}", "has dimension '-1', not an unsigned 64-bit integer"),
        ("{" + entry(shape="[true]") + "}", "has dimension 'True', not an unsigned 64-bit integer"),
        ("{" + entry(shape=f"[0,{2**64}]") + "}", f"has dimension '{2**64}', not an unsigned 64-bit integer"),
        ("{" + entry(shape=f"[{2**63},2]") + "}", f": the product of shape [{2**63}, 2] overflows 64 bits"),
        (
            "{" + entry(shape=f"[{LARGEST}]") + "}",
            f"of U8 [{LARGEST}] needs {8 * LARGEST} bits, its offsets span 2 bytes",
        ),
        (
            "{" + entry(shape=f"[{2**61}]", offsets=f"[0,{2**61}]") + "}",
            f"of U8 [{2**61}] needs {2**64} bits, its offsets span {2**61} bytes",
        ),
        ("{" + entry("F4", "[3]", "[0,1]") + "}", "of F4 [3] needs 12 bits, its offsets span 1 bytes"),
        ("{" + entry("F16", "[3]", "[2,4]") + "}", "of F16 [3] needs 48 bits, its offsets span 2 bytes"),
    ],
)
def test_an_entry_that_breaks_a_rule_is_refused_with_its_name_and_the_rule(header, cause):
    assert refused(header) == f"tensor 'a'{cause if cause.startswith(':') else ' ' + cause}"


@pytest.mark.parametrize(
    ("offsets", "data", "cause"),
    [
        ("[1,3]", 3, "tensor 'b' begins at 1 and overlaps the tensor before it, which ends at 2"),
        ("[3,5]", 5, "tensor 'b' begins at 3 and leaves a hole before it, which ends at 2"),
        ("[0,2]", 2, "tensor 'b' begins at 0 and overlaps the tensor before it, which ends at 2"),
        ("[2,4]", 5, "the tensors end at byte 4, the data buffer has 5 bytes"),
        ("[2,4]", 3, "the tensors end at byte 4, the data buffer has 3 bytes"),
        ("[1000,1002]", 1002, "tensor 'b' begins at 1000 and leaves a hole before it, which ends at 2"),
    ],
)
def test_bytes_that_belong_to_no_tensor_or_to_two_are_refused(offsets, data, cause):
    assert refused("{" + entry() + "," + entry(name="b", offsets=offsets) + "}", data) == cause


def test_the_first_tensor_starts_where_the_buffer_does():
    assert refused("{" + entry(offsets="[1,3]") + "}", 3) == (
        "tensor 'a' begins at 1 and leaves a hole before it, which ends at 0"
    )


def test_many_tensors_cover_a_buffer_in_whatever_order_they_are_listed():
    spans = [(256 * index, 256 * (index + 1)) for index in range(20)]
    entries = [entry(name=f"t{begin}", shape="[256]", offsets=f"[{begin},{end}]") for begin, end in reversed(spans)]

    assert len(parsed("{" + ",".join(entries) + "}", 5120).tensors) == 20


@pytest.mark.parametrize(("count", "shown"), [(8, ""), (9, ", …")])
def test_a_long_shape_is_told_by_its_first_eight_dimensions(count, shown):
    shape = [1] * (count - 1) + [3]
    first = ", ".join(map(str, shape[:8]))

    assert refused("{" + entry(shape=json.dumps(shape)) + "}") == (
        f"tensor 'a' of U8 [{first}{shown}] needs 24 bits, its offsets span 2 bytes"
    )


def test_a_long_number_is_told_by_its_first_24_digits():
    assert refused("{" + entry(offsets=f"[0,{'1' * 30}]") + "}") == (
        f"tensor 'a' has data_offsets [0, {'1' * 24}], not 0 <= begin <= end"
    )


# --- the collector ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", ["{" + entry() + "}", "{nonsense}"])
@pytest.mark.parametrize("enabled", [True, False])
def test_the_cycle_collector_is_as_it_was_before_a_header(header, enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        try:
            parsed(header)
        except InvalidFile:
            assert header == "{nonsense}"
        assert gc.isenabled() is enabled
    finally:
        gc.enable()
