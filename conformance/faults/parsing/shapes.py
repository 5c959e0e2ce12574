"""How large a tensor is: sizes unchecked, dimensions bent into something else."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from conformance.faults.parsing.changing import FILES, Raw, checked_entries, each, header_bytes, raw_entry
from conformance.faults.planting import Plant, fault


def _unsized(plant: Plant, accepts: Callable[[int, int], bool]) -> None:
    """Let through an entry whose shape and span disagree, where `accepts(bits wanted, bits there)`."""
    import math

    from reference_engine import errors, header

    def lenient(original: Any, walk: Any, name: str, dtype: Any, shape: Any, offsets: Any) -> Any:
        try:
            return original(walk, name, dtype, shape, offsets)
        except errors.InvalidFile:
            numbers = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == len(["begin", "end"])
            if not numbers or dtype not in header.DTYPE_BITS or not all(type(n) is int for n in [*shape, *offsets]):
                raise
            if min([*shape, *offsets], default=0) < 0 or offsets[0] > offsets[1]:
                raise
            wanted, there = math.prod(shape) * header.DTYPE_BITS[dtype], (offsets[1] - offsets[0]) * 8
            if not accepts(wanted, there):
                raise
            return header.TensorEntry(name, dtype, tuple(shape), *offsets)

    plant.replace(header._Walk, "checked", lenient)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES, seen_in="mlx#3363")
def size_unchecked(plant: Plant) -> None:
    """The shape is not held against the bytes that the offsets span."""
    _unsized(plant, lambda wanted, _there: wanted < 2**64)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES, seen_in="stable-diffusion.cpp PR#1754")
def more_bytes_than_the_shape_unchecked(plant: Plant) -> None:
    """A span may be longer than its shape needs; only a shorter one is refused."""
    _unsized(plant, lambda wanted, there: wanted <= there)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES)
def product_of_a_shape_wraps(plant: Plant) -> None:
    """The size of a tensor is computed modulo 2^64."""
    _unsized(plant, lambda wanted, there: wanted >= 2**64 and wanted % 2**64 == there)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES)
def negative_dimensions_made_positive(plant: Plant) -> None:
    """The sign of a dimension is dropped."""

    def positive(fields: Raw) -> None:
        fields["shape"] = each(fields["shape"], lambda size: abs(size) if type(size) is int else size)

    raw_entry(plant, positive)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES)
def dimensions_truncated_to_integers(plant: Plant) -> None:
    """Dimensions with a fraction lose it."""

    def whole(fields: Raw) -> None:
        fields["shape"] = each(
            fields["shape"], lambda size: int(size) if type(size) is float and abs(size) < 2**53 else size
        )

    raw_entry(plant, whole)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES)
def booleans_are_numbers(plant: Plant) -> None:
    """`true` counts as 1 and `false` as 0 in shapes and offsets."""

    def numbers(fields: Raw) -> None:
        for name in ("shape", "data_offsets"):
            fields[name] = each(fields[name], lambda n: int(n) if type(n) is bool else n)

    raw_entry(plant, numbers)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES)
def texts_are_numbers(plant: Plant) -> None:
    """`"8"` counts as 8 in shapes and offsets."""
    header_bytes(plant, lambda raw: re.sub(rb'([\[,]\s*)"(\d+)"(?=\s*[,\]])', rb"\1\2", raw))


@fault(expects={"F-PARSE-039": "files"}, blast=("parse", "dtype", "build", "mem"))
def scalars_are_vectors(plant: Plant) -> None:
    """A tensor without dimensions is said to have one."""

    def one(fields: Raw) -> None:
        fields["shape"] = fields["shape"] or [1]

    raw_entry(plant, one)


@fault(expects={"F-PARSE-039": "files"}, blast=("parse", "dtype", "build", "mem"))
def high_ranks_flattened(plant: Plant) -> None:
    """Dimensions beyond the fourth are folded into it."""
    from math import prod

    kept = 4

    def fold(fields: Raw) -> None:
        shape = fields["shape"]
        if isinstance(shape, list) and len(shape) > kept and all(type(size) is int for size in shape):
            fields["shape"] = [*shape[: kept - 1], prod(shape[kept - 1 :])]

    raw_entry(plant, fold)


@fault(expects={"F-PARSE-039": "files"}, blast=("parse", "dtype", "build", "mem"))
def empty_tensors_dropped(plant: Plant) -> None:
    """A tensor without a byte is left out."""
    checked_entries(plant, lambda tensors: {name: entry for name, entry in tensors.items() if entry.nbytes})
