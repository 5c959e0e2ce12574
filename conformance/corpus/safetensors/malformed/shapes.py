"""Faults in a shape: what is not a shape, and what does not fit the bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from conformance.corpus.safetensors.builder import DTYPE_BITS, Layout, Tensor
from conformance.corpus.safetensors.classes import Case, Family, Plain, Source, filler, plain, plain_from
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("shapes", row="F-PARSE-041")
_WORD = 2**64


def _with_shape(base: Plain, index: int, dims: Sequence[object]) -> Case:
    text = "[" + ",".join(str(dim) for dim in dims) + "]"
    return base.broken(base.parts.with_member(index, base.parts.members[index].with_field("shape", text)))


def _one_dim(source: Source, *options: str) -> Case:
    """Replace one dimension of one tensor by one of the options, where {} stands for the dimension."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    dims: list[object] = list(base.layout.tensors[index].shape)
    at = source.integer(0, len(dims) - 1)
    dims[at] = source.pick(options).format(dims[at])
    return _with_shape(base, index, dims)


@FAMILY.rejects(Rule.SHAPE)
def not_a_list(source: Source) -> Case:
    """The shape is a number, a string or an object."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    dims = base.layout.tensors[index].shape
    text = source.pick([str(math.prod(dims)), f'"{list(dims)}"', '"2x2"', "true", f'{{"0":{dims[0]}}}', "{}"])
    return base.broken(base.parts.with_member(index, base.parts.members[index].with_field("shape", text)))


@FAMILY.rejects(Rule.SHAPE)
def dim_not_number(source: Source) -> Case:
    """A dimension is a string, null, a truth value or a list."""
    return _one_dim(source, '"{}"', "null", "true", "[{}]", "[]", "{{}}")


@FAMILY.rejects(Rule.SHAPE)
def dim_true_for_one(source: Source) -> Case:
    """A last dimension of one is the truth value `true`, which fits the bytes where that counts as 1."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    return _with_shape(base, index, [*base.layout.tensors[index].shape, "true"])


@FAMILY.rejects(Rule.SHAPE)
def dim_negative(source: Source) -> Case:
    """A dimension is negative, with the size that it should have or as the wildcard -1."""
    return _one_dim(source, "-{}", "-1", "-9223372036854775808")


@FAMILY.rejects(Rule.SHAPE)
def dims_negative_pair(source: Source) -> Case:
    """Two dimensions are negative, so that their product is right."""
    base = plain(source, rank=2)
    index = source.pick(base.parts.tensors())
    return _with_shape(base, index, [-dim for dim in base.layout.tensors[index].shape])


@FAMILY.rejects(Rule.SHAPE)
def dim_fraction(source: Source) -> Case:
    """A dimension has a fraction, which a reader may cut off or round."""
    return _one_dim(source, "{}.5", "{}.25", "{}.9999", "{}.0000001")


@FAMILY.leaves_open(Rule.OBSCURE, official_accepts=False)
def dim_whole_float(source: Source) -> Case:
    """A dimension is a whole number with a decimal point or an exponent."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    dims: list[object] = list(base.layout.tensors[index].shape)
    at = source.integer(0, len(dims) - 1)
    dims[at] = source.pick(["{}.0", "{}e0", "{}.00E+0"]).format(dims[at])
    return replace(_with_shape(base, index, dims), readings=(base.contents,))


@FAMILY.rejects(Rule.SHAPE)
def dim_above_64_bits(source: Source) -> Case:
    """A dimension is right modulo 2**64 and does not fit in 64 bits."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    dims = list(base.layout.tensors[index].shape)
    at = source.integer(0, len(dims) - 1)
    dims[at] += source.integer(1, 9) * _WORD
    return _with_shape(base, index, dims)


@FAMILY.rejects(Rule.SIZE)
def dim_above_32_bits(source: Source) -> Case:
    """A dimension is right modulo 2**32: cut to 32 bits it fits the bytes."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    dims = list(base.layout.tensors[index].shape)
    at = source.integer(0, len(dims) - 1)
    dims[at] += source.integer(1, 2**16) * 2**32
    return _with_shape(base, index, dims)


@FAMILY.rejects(Rule.SIZE)
def product_too_small(source: Source) -> Case:
    """The shape asks for fewer bytes than the offsets give."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    dims = list(base.layout.tensors[index].shape)
    at = source.integer(0, len(dims) - 1)
    dims[at] -= source.integer(1, dims[at] - 1)
    return _with_shape(base, index, dims)


@FAMILY.rejects(Rule.SIZE)
def product_too_big(source: Source) -> Case:
    """The shape asks for more bytes than the offsets give."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    dims = list(base.layout.tensors[index].shape)
    dims[source.integer(0, len(dims) - 1)] += source.integer(1, 1000)
    return _with_shape(base, index, dims)


@FAMILY.rejects(Rule.SIZE)
def dtype_of_other_width(source: Source) -> Case:
    """The dtype is a legal one of another width than the bytes have."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    width = DTYPE_BITS[base.layout.tensors[index].dtype]
    others = [name for name in ("F32", "F16", "BF16", "U8", "F64", "I64") if DTYPE_BITS[name] != width]
    member = base.parts.members[index].with_field("dtype", f'"{source.pick(others)}"')
    return base.broken(base.parts.with_member(index, member))


@FAMILY.rejects(Rule.SIZE)
def scalar_of_many(source: Source) -> Case:
    """The shape is a scalar's and the bytes are several elements'."""
    base = plain(source)
    return _with_shape(base, source.pick(base.parts.tensors()), [])


@FAMILY.rejects(Rule.SIZE)
def zero_dim_with_bytes(source: Source) -> Case:
    """A dimension is 0 and the tensor has bytes all the same."""
    return _one_dim(source, "0")


@FAMILY.rejects(Rule.SIZE)
def bytes_missing(source: Source) -> Case:
    """A tensor with elements has an empty range and no bytes."""
    base = plain(source, least=2)
    index = source.pick(base.parts.tensors())
    name = base.layout.tensors[index].name
    emptied = tuple(replace(t, payload=b"") if t.name == name else t for t in base.layout.tensors)
    return base.broken(plain_from(replace(base.layout, tensors=emptied)).data)


@FAMILY.rejects(Rule.SIZE)
def elements_wrap(source: Source) -> Case:
    """The product of the dimensions overflows 64 bits and wraps to the right number of elements."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    count = math.prod(base.layout.tensors[index].shape)
    odd = 2 * source.integer(2**31, 2**33) + 1
    return _with_shape(base, index, [odd, count * pow(odd, -1, _WORD) % _WORD])


@FAMILY.rejects(Rule.SIZE)
def elements_wrap_to_zero(source: Source) -> Case:
    """The product of the dimensions overflows to exactly 0, so that the tensor looks empty."""
    base = plain(source, least=2)
    index = source.pick(base.parts.tensors())
    name = base.layout.tensors[index].name
    emptied = tuple(replace(t, payload=b"") if t.name == name else t for t in base.layout.tensors)
    empty = plain_from(replace(base.layout, tensors=emptied))
    half = source.integer(1, 63)
    broken = _with_shape(empty, index, source.pick([[2**half, 2 ** (64 - half)], [2**32, 2**32, 2**half]]))
    return replace(broken, control=base.data, control_contents=base.contents)


@FAMILY.rejects(Rule.SIZE)
def elements_wrap_at_32_bits(source: Source) -> Case:
    """The product of the dimensions fits in 64 bits and is right only modulo 2**32."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    count = math.prod(base.layout.tensors[index].shape)
    odd = 2 * source.integer(2**10, 2**15) + 1
    return _with_shape(base, index, [odd, count * pow(odd, -1, 2**32) % 2**32 + 2**32])


@FAMILY.rejects(Rule.SIZE)
def bytes_wrap(source: Source) -> Case:
    """The number of elements fits in 64 bits; times the dtype's width it wraps to the right size."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    tensor = base.layout.tensors[index]
    width = DTYPE_BITS[tensor.dtype] // source.pick([8, 1])
    return _with_shape(base, index, [math.prod(tensor.shape) + source.integer(1, width - 1) * (_WORD // width)])


@FAMILY.leaves_open(
    Rule.SILENT, official_accepts=False, note="dimensions are multiplied from left to right with a check"
)
def zero_after_overflow(source: Source) -> Case:
    """A dimension of 0 makes the tensor empty; the dimensions before it overflow 64 bits."""
    base = plain(source)
    dims = (2 ** source.integer(33, 63), 2 ** source.integer(33, 62), 0)
    empty = Tensor("empty", base.layout.tensors[0].dtype, dims, b"")
    odd = plain_from(replace(base.layout, tensors=(*base.layout.tensors, empty)))
    return base.broken(odd.data, (odd.contents,))


@FAMILY.rejects(Rule.WHOLE_BYTES)
def half_filled_byte(source: Source) -> Case:
    """A tensor of four- or six-bit elements does not fill whole bytes."""
    dtype, step = source.pick([("F4", 2), ("F6_E2M3", 4), ("F6_E3M2", 4)])
    count = step * source.integer(1, 12)
    size = count * DTYPE_BITS[dtype] // 8
    base = plain_from(Layout((Tensor("w", dtype, (count,), filler(source.integer(0, 65_535), size)),)))
    return _with_shape(base, 0, [count - source.integer(1, step - 1)])
