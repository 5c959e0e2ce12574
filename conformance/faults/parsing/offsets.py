"""Where a tensor lies: holes, overlaps, ends, and numbers that are no offsets."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from conformance.faults.parsing.changing import FILES, Raw, coverage, each, raw_entry
from conformance.faults.planting import Plant, fault


@fault(expects={"F-PARSE-041": "files"}, blast=FILES, seen_in="mlx#3363, audio.cpp PR#138")
def hole_unchecked(plant: Plant) -> None:
    """Bytes between two tensors that belong to none are let through."""

    def overlap(entries: list[Any], size: int) -> str:
        ordered = sorted(entries, key=lambda entry: (entry.begin, entry.end))
        lapped = any(a.end > b.begin for a, b in pairwise(ordered))
        return "overlap or wrong end" if lapped or max((e.end for e in entries), default=0) != size else ""

    coverage(plant, overlap)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES, seen_in="mlx#3409, h3.c PR#48")
def overlap_unchecked(plant: Plant) -> None:
    """Two tensors may share bytes, as long as all bytes have an owner."""

    def uncovered(entries: list[Any], size: int) -> str:
        covered = 0
        for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
            if entry.begin > covered:
                return "a hole"
            covered = max(covered, entry.end)
        return "" if covered == size else "wrong end"

    coverage(plant, uncovered)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES, seen_in="ComfyUI#15602")
def trailing_bytes_unchecked(plant: Plant) -> None:
    """Bytes behind the last tensor are let through."""

    def holes(entries: list[Any], size: int) -> str:
        covered = 0
        for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
            if entry.begin != covered:
                return "a hole or an overlap"
            covered = entry.end
        return "" if covered <= size else "past the end"

    coverage(plant, holes)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES)
def first_offset_unchecked(plant: Plant) -> None:
    """Tensors must follow one another, and the first may begin anywhere."""

    def holes(entries: list[Any], size: int) -> str:
        ordered = sorted(entries, key=lambda entry: (entry.begin, entry.end))
        covered = ordered[0].begin if ordered else 0
        for entry in ordered:
            if entry.begin != covered:
                return "a hole or an overlap"
            covered = entry.end
        return "" if covered == size else "wrong end"

    coverage(plant, holes)


@fault(expects={"F-PARSE-043": "files"}, blast=("parse", "dtype", "err", "load"), seen_in="aprender#275, PR#2011")
def missing_bytes_are_zeros(plant: Plant) -> None:
    """What a file that was cut short lacks is read as zeros."""
    from reference_engine import errors, files

    def lenient(original: Any, file: Any, offset: int, target: memoryview) -> None:
        try:
            original(file, offset, target)
        except errors.InvalidFile:
            return

    def nothing(_entries: list[Any], _size: int) -> str:
        return ""

    coverage(plant, nothing)
    plant.replace(files.TensorFile, "read_into", lenient)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES)
def reversed_offsets_swapped(plant: Plant) -> None:
    """An end before its begin is taken as the other way round."""

    def swap(fields: Raw) -> None:
        offsets = fields["data_offsets"]
        if isinstance(offsets, list) and all(type(at) is int for at in offsets):
            fields["data_offsets"] = sorted(offsets)

    raw_entry(plant, swap)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES)
def offsets_truncated_to_integers(plant: Plant) -> None:
    """Offsets with a fraction lose it."""

    def whole(fields: Raw) -> None:
        fields["data_offsets"] = each(fields["data_offsets"], lambda at: int(at) if type(at) is float else at)

    raw_entry(plant, whole)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES, seen_in="fastllm PR#713")
def offsets_of_32_bits(plant: Plant) -> None:
    """Offsets are kept in 32 bits and wrap."""

    def wrap(fields: Raw) -> None:
        fields["data_offsets"] = each(fields["data_offsets"], lambda at: at % 2**32 if type(at) is int else at)

    raw_entry(plant, wrap)


@fault(expects={"F-PARSE-041": "files"}, blast=FILES)
def negative_offsets_made_positive(plant: Plant) -> None:
    """The sign of an offset is dropped."""

    def positive(fields: Raw) -> None:
        fields["data_offsets"] = each(fields["data_offsets"], lambda at: abs(at) if type(at) is int else at)

    raw_entry(plant, positive)
