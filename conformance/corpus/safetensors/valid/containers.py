"""Valid files whose container is unusual: order, padding, spacing, alignment, empty tensors."""

from __future__ import annotations

from dataclasses import replace

from conformance.corpus.safetensors.builder import (
    DTYPE_BITS,
    Layout,
    Member,
    Style,
    Tensor,
    byte_count,
    document,
    escaped,
)
from conformance.corpus.safetensors.classes import (
    WEIGHT_DTYPES,
    Case,
    Family,
    Plain,
    Source,
    filler,
    plain,
    with_metadata,
)
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("containers", row="F-PARSE-036")


def _written(base: Plain, layout: Layout) -> Case:
    return base.odd(document(layout), layout.contents())


def shuffled(source: Source, count: int) -> tuple[int, ...]:
    """A permutation of range(count); all choices at their lowest leave it in order."""
    left = list(range(count))
    return tuple(left.pop(source.integer(0, len(left) - 1)) for _ in range(count))


def disordered(source: Source, count: int) -> tuple[int, ...]:
    """A permutation of range(count), two or more, that is not the identity."""
    order = shuffled(source, count)
    return order if order != tuple(range(count)) else order[::-1]


@FAMILY.accepts(Rule.RANK)
def no_tensors(source: Source) -> Case:
    """A header without tensors and no buffer, padded or not: ten bytes at the least."""
    base = plain(source)
    empty = Layout(())
    parts = replace(document(empty), padding=b" " * source.integer(0, 4096), multiple=0)
    return base.odd(parts, empty.contents())


@FAMILY.accepts(Rule.METADATA)
def only_metadata(source: Source) -> Case:
    """Metadata and no tensor."""
    layout = Layout((), metadata=(("note", "empty"), ("run", str(source.integer(0, 10**6)))))
    return _written(plain(source), layout)


@FAMILY.accepts(Rule.PADDING, row="F-PARSE-037")
def padding_long(source: Source) -> Case:
    """Up to 65,536 spaces of padding."""
    base = plain(source)
    return base.odd(replace(base.parts, padding=b" " * source.integer(8, 65_536)), base.contents)


@FAMILY.accepts(Rule.ALIGNMENT, row="F-PARSE-037")
def header_length_odd(source: Source) -> Case:
    """A header whose length is not a multiple of eight, so that every tensor is off its alignment."""
    base = plain(source)
    rest = source.integer(1, 7)
    text = len(base.parts.json())
    spaces = (rest - text) % 8
    return base.odd(replace(base.parts, padding=b" " * spaces, multiple=0), base.contents)


@FAMILY.accepts(Rule.ALIGNMENT)
def tensor_misaligned(source: Source) -> Case:
    """A one-byte tensor in front moves all others off their alignment."""
    base = plain(source)
    size = source.pick([1, 3, 5, 7])
    first = Tensor("a.flag", "U8", (size,), filler(size, size))
    return _written(base, replace(base.layout, tensors=(first, *base.layout.tensors)))


@FAMILY.accepts(Rule.ORDER)
def payload_shuffled(source: Source) -> Case:
    """The bytes stand in another order than the names."""
    base = plain(source, least=2, most=6)
    return _written(base, replace(base.layout, payload_order=disordered(source, len(base.layout.tensors))))


@FAMILY.accepts(Rule.ORDER)
def payload_reversed(source: Source) -> Case:
    """The bytes stand in the reverse order of the names."""
    base = plain(source, least=2, most=6)
    return _written(base, replace(base.layout, payload_order=tuple(range(len(base.layout.tensors)))[::-1]))


@FAMILY.accepts(Rule.JSON, row="F-PARSE-037")
def fields_permuted(source: Source) -> Case:
    """The three fields of each entry stand in any order."""
    base = plain(source)
    parts = base.parts
    for index in parts.tensors():
        fields = parts.members[index].fields()
        permuted = tuple(fields[at] for at in disordered(source, 3))
        parts = parts.with_member(index, replace(parts.members[index], value=permuted))
    return base.odd(parts, base.contents)


@FAMILY.accepts(Rule.JSON, row="F-PARSE-037")
def spaced(source: Source) -> Case:
    """White space between tokens, as other JSON writers leave it: blanks, line breaks, tabs."""
    base = with_metadata(plain(source), [("format", "pt")])
    gap = source.pick([" ", "\n  ", "\r\n\t", "\t", "   "])
    style = Style(f",{gap}", source.pick([": ", " :", ":\n"]), source.pick(["", gap]))
    return base.odd(replace(base.parts, style=style), base.contents)


@FAMILY.accepts(Rule.NAMES, row="F-PARSE-037")
def names_escaped(source: Source) -> Case:
    """Names and fields are spelled with escapes where plain characters would do."""
    base = plain(source)
    parts = base.parts
    for index in parts.tensors():
        member = parts.members[index]
        keep = source.integer(0, len(member.key) - 3)
        name = member.key[1:-1]
        parts = parts.with_member(index, replace(member, key=f'"{name[:keep]}{escaped(name[keep:])}"'))
    return base.odd(parts, base.contents)


@FAMILY.accepts(Rule.JSON, row="F-PARSE-037")
def fields_escaped(source: Source) -> Case:
    """A field's key or a dtype is spelled with escapes."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    member = base.parts.members[index]
    at = source.integer(0, 2)
    key, value = member.fields()[at]
    pair = (f'"{escaped(key[1:-1])}"', f'"{escaped(value[1:-1])}"' if at == 0 else value)
    fields = (*member.fields()[:at], pair, *member.fields()[at + 1 :])
    return base.odd(base.parts.with_member(index, Member(member.key, fields)), base.contents)


@FAMILY.accepts(Rule.ORDER)
def many_tensors(source: Source) -> Case:
    """Dozens to a hundred of small tensors of mixed dtype."""
    base = plain(source)
    tag = source.integer(0, 65_535)
    tensors = tuple(
        Tensor(f"t.{i}", dtype, (1 + i % 3,), filler(tag + i, byte_count(dtype, (1 + i % 3,))))
        for i in range(source.pick([30, 60, 120]))
        for dtype in [WEIGHT_DTYPES[(tag + i) % 3]]
    )
    return _written(base, Layout(tensors))


# --- shapes -------------------------------------------------------------------------------------------


@FAMILY.accepts(Rule.RANK, row="F-PARSE-039")
def scalar(source: Source) -> Case:
    """A tensor of rank 0, alone or beside others."""
    base = plain(source)
    dtype = source.pick(WEIGHT_DTYPES)
    tensor = Tensor("scale", dtype, (), filler(source.integer(0, 65_535), DTYPE_BITS[dtype] // 8))
    beside = source.pick([(), base.layout.tensors])
    return _written(base, Layout((*beside, tensor)))


@FAMILY.accepts(Rule.RANK, row="F-PARSE-039")
def rank_high(source: Source) -> Case:
    """A tensor of rank 5 to 32."""
    base = plain(source)
    rank = source.integer(5, 32)
    wide = min(rank, 8)
    shape = (*(source.integer(1, 2) for _ in range(wide)), *(1,) * (rank - wide))
    dtype = source.pick(WEIGHT_DTYPES)
    payload = filler(source.integer(0, 65_535), byte_count(dtype, shape))
    return _written(base, Layout((*base.layout.tensors, Tensor("deep", dtype, shape, payload))))


def _empty(source: Source, name: str) -> Tensor:
    dims = [source.integer(0, 3) for _ in range(source.integer(1, 4))]
    dims[source.integer(0, len(dims) - 1)] = 0
    return Tensor(name, source.pick(WEIGHT_DTYPES), tuple(dims), b"")


@FAMILY.accepts(Rule.RANK, row="F-PARSE-039")
def zero_sized_only(source: Source) -> Case:
    """Nothing but tensors with a dimension of 0, and so no buffer."""
    base = plain(source)
    tensors = tuple(_empty(source, f"empty.{i}") for i in range(source.integer(1, 3)))
    return _written(base, Layout(tensors))


@FAMILY.accepts(Rule.RANK, row="F-PARSE-039")
def zero_sized_between(source: Source) -> Case:
    """A tensor with a dimension of 0 before, between or after others."""
    base = plain(source, least=2)
    at = source.integer(0, len(base.layout.tensors))
    tensors = (*base.layout.tensors[:at], _empty(source, "empty"), *base.layout.tensors[at:])
    return _written(base, Layout(tensors))


@FAMILY.accepts(Rule.ORDER, row="F-PARSE-039")
def zero_sized_after_twin(source: Source) -> Case:
    """A tensor of no bytes is listed after the one that begins where it begins and has bytes."""
    base = plain(source)
    count = len(base.layout.tensors)
    at = source.integer(0, count - 1)
    tensors = (*base.layout.tensors, _empty(source, "empty"))
    order = (*range(at), count, *range(at, count))
    return _written(base, Layout(tensors, payload_order=order))


@FAMILY.accepts(Rule.RANK, row="F-PARSE-039")
def zero_sized_giant(source: Source) -> Case:
    """A dimension of 0 beside dimensions far above 32 bits, whose product does not overflow."""
    base = plain(source)
    giant = 2 ** source.integer(32, 52) + source.integer(0, 5)
    shape = source.pick([(0, giant), (giant, 0), (1, 0, giant)])
    return _written(base, Layout((*base.layout.tensors, Tensor("empty", "F32", shape, b""))))
