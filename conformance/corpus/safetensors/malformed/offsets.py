"""Faults in data_offsets: which bytes of the buffer belong to which tensor."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from conformance.corpus.safetensors.builder import Document, Member, entry, json_string
from conformance.corpus.safetensors.builder import TensorContents as Entry
from conformance.corpus.safetensors.classes import Case, Family, Plain, Source, filler, plain
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("offsets", row="F-PARSE-041")
_WORD = 2**64


def _range(base: Plain, index: int) -> tuple[int, int]:
    found = base.contents.tensors[base.layout.tensors[index].name]
    return found.begin, found.end


def _with_offsets(parts: Document, index: int, begin: object, end: object) -> Document:
    return parts.with_member(index, parts.members[index].with_field("data_offsets", f"[{begin},{end}]"))


def _all_moved(base: Plain, move: Callable[[int], object]) -> Document:
    """Every offset of the header passed through `move`."""
    parts = base.parts
    for index in parts.tensors():
        begin, end = _range(base, index)
        parts = _with_offsets(parts, index, move(begin), move(end))
    return parts


def _last(base: Plain) -> int:
    return len(base.layout.tensors) - 1


@FAMILY.rejects(Rule.INDEXED)
def first_not_at_zero(source: Source) -> Case:
    """Bytes that belong to nothing stand before the first tensor."""
    base = plain(source)
    shift = source.integer(1, 64)
    moved = _all_moved(base, lambda offset: offset + shift)
    return base.broken(replace(moved, buffer=filler(shift, shift) + base.parts.buffer))


@FAMILY.rejects(Rule.INDEXED)
def hole(source: Source) -> Case:
    """Bytes that belong to nothing stand between two tensors."""
    base = plain(source, least=2)
    border = _range(base, source.integer(1, _last(base)))[0]
    gap = source.integer(1, 64)
    moved = _all_moved(base, lambda offset: offset)
    for index in base.parts.tensors():
        begin, end = _range(base, index)
        if begin >= border:
            moved = _with_offsets(moved, index, begin + gap, end + gap)
    buffer = base.parts.buffer[:border] + filler(gap, gap) + base.parts.buffer[border:]
    return base.broken(replace(moved, buffer=buffer))


@FAMILY.rejects(Rule.INDEXED)
def trailing_bytes(source: Source) -> Case:
    """Bytes follow the last tensor: padding, a newline, or a whole archive."""
    base = plain(source)
    tail = source.pick([b"\0", b"\n", b" " * 8, b"\0" * 4096, b"PK\x05\x06" + b"\0" * 18, base.data])
    return base.broken(base.data + tail)


@FAMILY.rejects(Rule.INDEXED)
def entry_removed(source: Source) -> Case:
    """One tensor is not in the header any more, and its bytes are still in the buffer."""
    base = plain(source, least=2)
    return base.broken(base.parts.with_member(source.pick(base.parts.tensors())))


@FAMILY.rejects(Rule.OWNED)
def overlap(source: Source) -> Case:
    """A tensor begins before its neighbour ends; the buffer is that much shorter."""
    base = plain(source, least=2)
    border = _range(base, source.integer(1, _last(base)))[0]
    shared = source.integer(1, border)
    moved = base.parts
    for index in base.parts.tensors():
        begin, end = _range(base, index)
        if begin >= border:
            moved = _with_offsets(moved, index, begin - shared, end - shared)
    buffer = base.parts.buffer[: border - shared] + base.parts.buffer[border:]
    return base.broken(replace(moved, buffer=buffer))


@FAMILY.rejects(Rule.OWNED)
def range_shared(source: Source) -> Case:
    """Two names stand for the same bytes, as tied weights might be written."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    tensor = base.layout.tensors[index]
    found = base.contents.tensors[tensor.name]
    twin = entry(f"tied.{index}", Entry(tensor.dtype, tensor.shape, found.begin, tensor.payload))
    return base.broken(base.parts.with_member(index, base.parts.members[index], twin))


@FAMILY.rejects(Rule.OWNED)
def range_within(source: Source) -> Case:
    """A second name stands for a part of another tensor's bytes, from its start, middle or end."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    at = source.integer(begin, end - 1)
    size = source.integer(1, min(end - at, end - begin - 1))
    view = entry("view", Entry("U8", (size,), at, b"\0" * size))
    return base.broken(base.parts.with_member(index, base.parts.members[index], view))


@FAMILY.rejects(Rule.OFFSETS)
def reversed_pair(source: Source) -> Case:
    """The two offsets are exchanged."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    return base.broken(_with_offsets(base.parts, index, end, begin))


@FAMILY.rejects(Rule.OFFSETS)
def past_end(source: Source) -> Case:
    """A tensor whose shape and offsets agree reaches past the end of the file."""
    base = plain(source)
    begin, _ = _range(base, _last(base))
    tensor = base.layout.tensors[-1]
    width = len(tensor.payload) // max(1, _count(tensor.shape))
    count = _count(tensor.shape) + source.integer(1, 2**20)
    grown = base.parts.members[-1].with_field("shape", f"[{count}]")
    parts = base.parts.with_member(_last(base), grown)
    return base.broken(_with_offsets(parts, _last(base), begin, begin + count * width))


def _count(shape: tuple[int, ...]) -> int:
    product = 1
    for dim in shape:
        product *= dim
    return product


@FAMILY.rejects(Rule.OFFSETS)
def all_past_end(source: Source) -> Case:
    """A whole tensor of legal shape lies beyond the end of the file."""
    base = plain(source)
    size = source.integer(1, 2**20)
    beyond = entry("beyond", Entry("U8", (size,), len(base.parts.buffer), b""))
    begin = len(base.parts.buffer)
    parts = base.parts.with_member(_last(base), base.parts.members[-1], beyond)
    return base.broken(_with_offsets(parts, _last(base) + 1, begin, begin + size))


@FAMILY.rejects(Rule.SIZE)
def end_moved(source: Source) -> Case:
    """One end lies too early or too late, while the neighbours stay where they were."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    return base.broken(_with_offsets(base.parts, index, begin, end + source.pick([1, -1, 2, 4, 8, -2])))


@FAMILY.rejects(Rule.OFFSETS)
def length_for_end(source: Source) -> Case:
    """The second number is the tensor's length instead of its end."""
    base = plain(source, least=2)
    parts = base.parts
    for index in base.parts.tensors():
        begin, end = _range(base, index)
        parts = _with_offsets(parts, index, begin, end - begin)
    return base.broken(parts)


@FAMILY.rejects(Rule.RELATIVE)
def counted_from_file(source: Source) -> Case:
    """Offsets count from the start of the file instead of the buffer."""
    base = plain(source)
    start = len(base.data) - len(base.parts.buffer)
    return base.broken(_all_moved(base, lambda offset: offset + start))


@FAMILY.rejects(Rule.OFFSETS)
def counted_in_elements(source: Source) -> Case:
    """Offsets count elements instead of bytes."""
    base = plain(source)
    parts = base.parts
    cursor = 0
    for index in base.parts.tensors():
        count = _count(base.layout.tensors[index].shape)
        parts = _with_offsets(parts, index, cursor, cursor + count)
        cursor += count
    return base.broken(parts)


@FAMILY.rejects(Rule.OFFSETS)
def negative(source: Source) -> Case:
    """An offset is negative: its sign turned, or counted from the end."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    size = len(base.parts.buffer)
    pair = source.pick([(begin, -end), (-end, -begin or -1), (begin - size, end - size), (begin, -1), (-1, end)])
    return base.broken(_with_offsets(base.parts, index, *pair))


@FAMILY.rejects(Rule.OFFSETS)
def fraction(source: Source) -> Case:
    """An offset has a fraction that a reader may cut off."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    part = source.pick([".5", ".25", ".0000001", ".999"])
    pair = source.pick([(f"{begin}{part}", end), (begin, f"{end}{part}")])
    return base.broken(_with_offsets(base.parts, index, *pair))


@FAMILY.leaves_open(Rule.OBSCURE, official_accepts=False)
def whole_float(source: Source) -> Case:
    """An offset is a whole number with a decimal point or an exponent."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    part = source.pick([".0", "e0", ".00E+0"])
    pair = source.pick([(begin, f"{end}{part}"), (f"{begin}{part}", end)])
    return base.broken(_with_offsets(base.parts, index, *pair), (base.contents,))


@FAMILY.rejects(Rule.OFFSETS)
def not_numbers(source: Source) -> Case:
    """An offset is a string, null, a truth value or a list."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    wrong = source.pick(['"{}"', "null", "true", "[{}]", "{{}}"])
    pair = source.pick([(begin, wrong.format(end)), (wrong.format(begin), end)])
    return base.broken(_with_offsets(base.parts, index, *pair))


@FAMILY.rejects(Rule.OFFSETS)
def wrong_count(source: Source) -> Case:
    """data_offsets has none, one, three or four numbers."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    text = source.pick([f"[{begin},{end},{end}]", f"[{begin}]", f"[{end}]", "[]", f"[{begin},{end},0,0]"])
    member = base.parts.members[index].with_field("data_offsets", text)
    return base.broken(base.parts.with_member(index, member))


@FAMILY.rejects(Rule.OFFSETS)
def not_a_list(source: Source) -> Case:
    """data_offsets is an object, a string or a number."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    text = source.pick([f'{{"begin":{begin},"end":{end}}}', f'"{begin}:{end}"', str(begin), "true", "{}"])
    member = base.parts.members[index].with_field("data_offsets", text)
    return base.broken(base.parts.with_member(index, member))


@FAMILY.rejects(Rule.OFFSETS)
def above_32_bits(source: Source) -> Case:
    """Both offsets of a tensor are right modulo 2**32."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    high = source.integer(1, 2**20) << 32
    return base.broken(_with_offsets(base.parts, index, begin + high, end + high))


@FAMILY.rejects(Rule.OFFSETS)
def above_64_bits(source: Source) -> Case:
    """An offset is right modulo 2**64 and does not fit in 64 bits."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    high = source.integer(1, 9) * _WORD
    pair = source.pick([(begin, end + high), (begin + high, end + high)])
    return base.broken(_with_offsets(base.parts, index, *pair))


@FAMILY.rejects(Rule.OFFSETS)
def difference_wraps(source: Source) -> Case:
    """The difference of the offsets is right only where subtraction wraps at 2**64."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    back = source.integer(1, end - begin)
    return base.broken(_with_offsets(base.parts, index, _WORD - back, end - begin - back))


@FAMILY.rejects(Rule.OFFSETS)
def sum_wraps_into_header(source: Source) -> Case:
    """Added to the start of the buffer the offsets wrap at 2**64 and point at the header's text."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    begin, end = _range(base, index)
    size = end - begin
    start = len(base.data) - len(base.parts.buffer)
    low = _WORD - source.integer(size + 1, max(size + 1, start))
    return base.broken(_with_offsets(base.parts, index, low, low + size))


@FAMILY.rejects(Rule.OFFSETS)
def consistent_and_giant(source: Source) -> Case:
    """Shapes, offsets and order agree, and the tensors would fill up to 2**63 or 2**64 bytes."""
    base = plain(source)
    start = len(base.parts.buffer)
    top = source.pick([2**40, 2**62, 2**63 - 1, 2**63, _WORD - 1]) - source.integer(0, 16)
    members: list[Member] = []
    cursor = start
    while cursor < top:
        size = min(2**61 - 1, top - cursor)
        fields = (
            ('"dtype"', '"U8"'),
            ('"shape"', f"[{size}]"),
            ('"data_offsets"', f"[{cursor},{cursor + size}]"),
        )
        members.append(Member(json_string(f"giant.{len(members)}"), fields))
        cursor += size
    return base.broken(base.parts.with_member(_last(base), base.parts.members[-1], *members))
