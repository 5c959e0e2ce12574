"""A header parser that lets through one thing, or changes one: each fault is one missing or mistaken step."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from conformance.faults.planting import Plant, fault
from reference_engine.header import Header

_FILES = ("parse", "dtype", "F-ERR-093")
Raw = dict[str, Any]


def _raw_entry(plant: Plant, change: Callable[[Raw], None]) -> None:
    """Change the fields of an entry before they are checked."""
    from reference_engine import header

    def changed(original: Any, walk: Any, name: str, dtype: Any, shape: Any, offsets: Any) -> Any:
        fields = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        change(fields)
        return original(walk, name, fields["dtype"], fields["shape"], fields["data_offsets"])

    plant.replace(header._Walk, "checked", changed)


def _header_bytes(plant: Plant, change: Callable[[bytes], bytes]) -> None:
    """Change the header's bytes before they are parsed; the data starts where it did."""
    from reference_engine import files

    def changed(original: Any, path: str, raw: bytes | bytearray, size: int) -> Any:
        new = change(bytes(raw))
        parsed = original(path, new, size - len(raw) + len(new))
        return Header(parsed.tensors, parsed.metadata, 8 + len(raw))

    plant.replace(files, "parse_header", changed)


def _entries(plant: Plant, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the checked entries of a file."""
    from reference_engine import files

    def changed(original: Any, path: str, raw: bytes, size: int) -> Any:
        parsed = original(path, raw, size)
        return Header(change(parsed.tensors), parsed.metadata, parsed.data_start)

    plant.replace(files, "parse_header", changed)


def _coverage(plant: Plant, check: Callable[[list[Any], int], str]) -> None:
    """Replace the check that tensors cover the data by one that says what is wrong, or nothing."""
    from reference_engine import header
    from reference_engine.errors import InvalidFile

    def checked(_original: Any, path: str, entries: list[Any], size: int) -> None:
        if cause := check(entries, size):
            raise InvalidFile(path, cause)

    plant.replace(header, "_check_coverage", checked)


def _each(shape: Any, change: Callable[[Any], Any]) -> Any:
    return [change(size) for size in shape] if isinstance(shape, list) else shape


# --- offsets ----------------------------------------------------------------------------------------------


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES, seen_in="mlx#3363, audio.cpp PR#138")
def hole_unchecked(plant: Plant) -> None:
    """Bytes between two tensors that belong to none are let through."""

    def overlap(entries: list[Any], size: int) -> str:
        ordered = sorted(entries, key=lambda entry: (entry.begin, entry.end))
        lapped = any(a.end > b.begin for a, b in pairwise(ordered))
        return "overlap or wrong end" if lapped or max((e.end for e in entries), default=0) != size else ""

    _coverage(plant, overlap)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES, seen_in="mlx#3409, h3.c PR#48")
def overlap_unchecked(plant: Plant) -> None:
    """Two tensors may share bytes, as long as all bytes have an owner."""

    def uncovered(entries: list[Any], size: int) -> str:
        covered = 0
        for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
            if entry.begin > covered:
                return "a hole"
            covered = max(covered, entry.end)
        return "" if covered == size else "wrong end"

    _coverage(plant, uncovered)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES, seen_in="ComfyUI#15602")
def trailing_bytes_unchecked(plant: Plant) -> None:
    """Bytes behind the last tensor are let through."""

    def holes(entries: list[Any], size: int) -> str:
        covered = 0
        for entry in sorted(entries, key=lambda entry: (entry.begin, entry.end)):
            if entry.begin != covered:
                return "a hole or an overlap"
            covered = entry.end
        return "" if covered <= size else "past the end"

    _coverage(plant, holes)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES)
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

    _coverage(plant, holes)


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

    _coverage(plant, nothing)
    plant.replace(files.TensorFile, "read_into", lenient)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES)
def reversed_offsets_swapped(plant: Plant) -> None:
    """An end before its begin is taken as the other way round."""

    def swap(fields: Raw) -> None:
        offsets = fields["data_offsets"]
        if isinstance(offsets, list) and all(type(at) is int for at in offsets):
            fields["data_offsets"] = sorted(offsets)

    _raw_entry(plant, swap)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES)
def offsets_truncated_to_integers(plant: Plant) -> None:
    """Offsets with a fraction lose it."""

    def whole(fields: Raw) -> None:
        fields["data_offsets"] = _each(fields["data_offsets"], lambda at: int(at) if type(at) is float else at)

    _raw_entry(plant, whole)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES, seen_in="fastllm PR#713")
def offsets_of_32_bits(plant: Plant) -> None:
    """Offsets are kept in 32 bits and wrap."""

    def wrap(fields: Raw) -> None:
        fields["data_offsets"] = _each(fields["data_offsets"], lambda at: at % 2**32 if type(at) is int else at)

    _raw_entry(plant, wrap)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES)
def negative_offsets_made_positive(plant: Plant) -> None:
    """The sign of an offset is dropped."""

    def positive(fields: Raw) -> None:
        fields["data_offsets"] = _each(fields["data_offsets"], lambda at: abs(at) if type(at) is int else at)

    _raw_entry(plant, positive)


# --- shapes -----------------------------------------------------------------------------------------------


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


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES, seen_in="mlx#3363")
def size_unchecked(plant: Plant) -> None:
    """The shape is not held against the bytes that the offsets span."""
    _unsized(plant, lambda wanted, _there: wanted < 2**64)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES, seen_in="stable-diffusion.cpp PR#1754")
def more_bytes_than_the_shape_unchecked(plant: Plant) -> None:
    """A span may be longer than its shape needs; only a shorter one is refused."""
    _unsized(plant, lambda wanted, there: wanted <= there)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES)
def product_of_a_shape_wraps(plant: Plant) -> None:
    """The size of a tensor is computed modulo 2^64."""
    _unsized(plant, lambda wanted, there: wanted >= 2**64 and wanted % 2**64 == there)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES)
def negative_dimensions_made_positive(plant: Plant) -> None:
    """The sign of a dimension is dropped."""

    def positive(fields: Raw) -> None:
        fields["shape"] = _each(fields["shape"], lambda size: abs(size) if type(size) is int else size)

    _raw_entry(plant, positive)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES)
def dimensions_truncated_to_integers(plant: Plant) -> None:
    """Dimensions with a fraction lose it."""

    def whole(fields: Raw) -> None:
        fields["shape"] = _each(
            fields["shape"], lambda size: int(size) if type(size) is float and abs(size) < 2**53 else size
        )

    _raw_entry(plant, whole)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES)
def booleans_are_numbers(plant: Plant) -> None:
    """`true` counts as 1 and `false` as 0 in shapes and offsets."""

    def numbers(fields: Raw) -> None:
        for name in ("shape", "data_offsets"):
            fields[name] = _each(fields[name], lambda n: int(n) if type(n) is bool else n)

    _raw_entry(plant, numbers)


@fault(expects={"F-PARSE-041": "files"}, blast=_FILES)
def texts_are_numbers(plant: Plant) -> None:
    """`"8"` counts as 8 in shapes and offsets."""
    _header_bytes(plant, lambda raw: re.sub(rb'([\[,]\s*)"(\d+)"(?=\s*[,\]])', rb"\1\2", raw))


@fault(expects={"F-PARSE-039": "files"}, blast=("parse", "dtype", "build", "mem"))
def scalars_are_vectors(plant: Plant) -> None:
    """A tensor without dimensions is said to have one."""

    def one(fields: Raw) -> None:
        fields["shape"] = fields["shape"] or [1]

    _raw_entry(plant, one)


@fault(expects={"F-PARSE-039": "files"}, blast=("parse", "dtype", "build", "mem"))
def high_ranks_flattened(plant: Plant) -> None:
    """Dimensions beyond the fourth are folded into it."""
    from math import prod

    kept = 4

    def fold(fields: Raw) -> None:
        shape = fields["shape"]
        if isinstance(shape, list) and len(shape) > kept and all(type(size) is int for size in shape):
            fields["shape"] = [*shape[: kept - 1], prod(shape[kept - 1 :])]

    _raw_entry(plant, fold)


@fault(expects={"F-PARSE-039": "files"}, blast=("parse", "dtype", "build", "mem"))
def empty_tensors_dropped(plant: Plant) -> None:
    """A tensor without a byte is left out."""
    _entries(plant, lambda tensors: {name: entry for name, entry in tensors.items() if entry.nbytes})


# --- header text ------------------------------------------------------------------------------------------


@fault(expects={"F-PARSE-042": "files"}, blast=_FILES)
def bad_utf8_replaced(plant: Plant) -> None:
    """Bytes that are no UTF-8 become replacement characters."""
    _header_bytes(plant, lambda raw: raw.decode("utf-8", "replace").encode())


@fault(expects={"F-PARSE-042": "files"}, blast=_FILES)
def nul_padding_taken_for_blanks(plant: Plant) -> None:
    """Zero bytes behind the JSON are cut off."""
    _header_bytes(plant, lambda raw: raw.rstrip(b"\0"))


@fault(expects={"F-PARSE-042": "files"}, blast=_FILES)
def what_follows_the_json_ignored(plant: Plant) -> None:
    """Everything behind the first JSON value is ignored."""
    import json

    def first(raw: bytes) -> bytes:
        try:
            text = raw.decode()
            return text[: json.JSONDecoder().raw_decode(text)[1]].encode()
        except (ValueError, RecursionError):
            return raw

    _header_bytes(plant, first)


@fault(expects={"F-PARSE-042": "files"}, blast=_FILES)
def trailing_commas_let_through(plant: Plant) -> None:
    """A comma before a closing bracket is forgiven, and a bracket that is missing at the end is put there."""

    def mended(raw: bytes) -> bytes:
        new = re.sub(rb",\s*([}\]])", rb"\1", raw).rstrip()
        return new + b"}" * max(0, new.count(b"{") - new.count(b"}"))

    _header_bytes(plant, mended)


@fault(expects={"F-PARSE-042": "files"}, blast=_FILES, seen_in="runai PR#121")
def header_length_trusted(plant: Plant) -> None:
    """A header length beyond the file is cut to the file, and the JSON in it is used."""
    from reference_engine import errors, files

    def trusting(original: Any, path: str, prefix: bytes, size: int) -> Any:
        try:
            return original(path, prefix, size)
        except errors.InvalidFile:
            if len(prefix) < len("12345678"):
                raise
            return size - len(prefix)

    def padded(original: Any, path: str, raw: bytes | bytearray, size: int) -> Any:
        whole = bytes(raw).partition(b"}}")[0] + b"}}"
        fits = len(raw) + 8 < size or b"}}" not in raw
        return original(path, raw if fits else whole, size)

    plant.replace(files, "header_length", trusting)
    plant.replace(files, "parse_header", padded)


@fault(expects={"F-PARSE-042": "files"}, blast=_FILES)
def empty_header_is_no_tensors(plant: Plant) -> None:
    """A header of length zero is taken for a file without tensors."""
    from reference_engine import files

    def empty(original: Any, path: str, raw: bytes, size: int) -> Any:
        return original(path, raw, size) if raw else Header({}, {}, size)

    plant.replace(files, "parse_header", empty)


@fault(expects={"F-PARSE-042": "files"}, blast=_FILES)
def missing_fields_defaulted(plant: Plant) -> None:
    """An entry without a dtype is F32."""
    import json

    def defaulted(raw: bytes) -> bytes:
        try:
            value = json.loads(raw)
        except (ValueError, RecursionError):
            return raw
        if not isinstance(value, dict):
            return raw
        bare = [e for n, e in value.items() if n != "__metadata__" and isinstance(e, dict) and "dtype" not in e]
        for entry in bare:
            entry["dtype"] = "F32"
        return json.dumps(value).encode() if bare else raw

    _header_bytes(plant, defaulted)


@fault(expects={"F-PARSE-042": "files"}, blast=_FILES)
def repeated_fields_last_wins(plant: Plant) -> None:
    """A field that an entry gives twice counts as it stands last."""
    import json

    def merged(raw: bytes) -> bytes:
        names: list[str] = []

        def last(pairs: list[tuple[str, Any]]) -> Raw:
            names.extend(_twice(pairs))
            return dict(pairs)

        try:
            value = json.loads(raw, object_pairs_hook=last)
        except (ValueError, RecursionError):
            return raw
        return json.dumps(value).encode() if {"dtype", "shape", "data_offsets"} & set(names) else raw

    _header_bytes(plant, merged)


def _twice(pairs: list[tuple[str, Any]]) -> list[str]:
    keys = [key for key, _ in pairs]
    return [key for key in set(keys) if keys.count(key) > 1]


@fault(expects={"F-PARSE-042": "files"}, blast=_FILES, crash=True)
def deep_nesting_ends_the_process(plant: Plant) -> None:
    """The header goes to a parser that calls itself for every bracket, until its stack is gone."""
    import os

    deepest = 1000

    def crash(raw: bytes) -> bytes:
        if max(raw.count(b"["), raw.count(b"{")) > deepest:
            os.abort()
        return raw

    _header_bytes(plant, crash)


@fault(expects={"F-PARSE-042": "files"}, blast=_FILES)
def nan_is_a_number(plant: Plant) -> None:
    """A dimension that JSON has no number for is taken to be what the bytes leave for it."""
    import math

    from reference_engine import header

    def guessed(fields: Raw) -> None:
        shape, offsets = fields["shape"], fields["data_offsets"]
        if isinstance(shape, list) and any(type(size) is float and not math.isfinite(size) for size in shape):
            fields["shape"] = [(offsets[1] - offsets[0]) * 8 // header.DTYPE_BITS[fields["dtype"]]]

    _raw_entry(plant, guessed)


# --- names and metadata -----------------------------------------------------------------------------------


def _renamed(plant: Plant, change: Callable[[str], str]) -> None:
    def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
        return {change(name): entry._replace(name=change(name)) for name, entry in tensors.items()}

    _entries(plant, renamed)


@fault(expects={"F-PARSE-038": "files"}, blast=_FILES)
def names_normalised(plant: Plant) -> None:
    """Names are brought into Unicode's composed form."""
    _renamed(plant, lambda name: unicodedata.normalize("NFC", name))


@fault(expects={"F-PARSE-038": "files"}, blast=_FILES)
def names_folded(plant: Plant) -> None:
    """Names lose their capitals."""
    _renamed(plant, str.lower)


@fault(expects={"F-PARSE-038": "files"}, blast=_FILES)
def names_cut_at_63(plant: Plant) -> None:
    """Names are kept in 64 bytes with a zero at the end, as GGUF once did."""
    _renamed(plant, lambda name: name[:63])


@fault(expects={"F-PARSE-038": "files"}, blast=_FILES)
def names_stripped(plant: Plant) -> None:
    """White space around a name is dropped, and an empty name becomes `unnamed`."""
    _renamed(plant, lambda name: name.strip() or "unnamed")


@fault(expects={"F-PARSE-038": "files"}, blast=_FILES)
def escapes_in_names_kept(plant: Plant) -> None:
    """JSON escapes in names are left as they are written."""
    from reference_engine import header

    plant.replace(header._Walk, "plain", lambda _original, _walk, text: text)


@fault(expects={"F-PARSE-045": "files"}, blast=_FILES)
def metadata_dropped(plant: Plant) -> None:
    """`__metadata__` is read over and forgotten."""
    from reference_engine import files

    def without(original: Any, path: str, raw: bytes, size: int) -> Any:
        parsed = original(path, raw, size)
        return Header(parsed.tensors, {}, parsed.data_start)

    plant.replace(files, "parse_header", without)


@fault(expects={"F-PARSE-045": "clear"}, blast=_FILES)
def metadata_values_made_texts(plant: Plant) -> None:
    """A metadata value that is no text becomes one."""
    import json

    def texts(raw: bytes) -> bytes:
        try:
            value = json.loads(raw)
            pairs = value["__metadata__"].items()
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return raw
        if all(isinstance(each, str) for _, each in pairs):
            return raw
        value["__metadata__"] = {key: each if isinstance(each, str) else json.dumps(each) for key, each in pairs}
        return json.dumps(value).encode()

    _header_bytes(plant, texts)


@fault(expects={"F-PARSE-045": "files"}, blast=_FILES)
def metadata_keys_folded(plant: Plant) -> None:
    """Keys of the metadata lose capitals and blanks."""
    from reference_engine import files

    def folded(original: Any, path: str, raw: bytes, size: int) -> Any:
        parsed = original(path, raw, size)
        metadata = {key.strip().lower(): value for key, value in parsed.metadata.items()}
        return Header(parsed.tensors, metadata, parsed.data_start)

    plant.replace(files, "parse_header", folded)


# --- files as a whole -------------------------------------------------------------------------------------


@fault(expects={"F-PARSE-044": "files"}, blast=("parse", "dtype", "err"), seen_in="aprender#275, #658")
def foreign_files_are_empty(plant: Plant) -> None:
    """What has no SafeTensors header is a file without tensors."""
    from reference_engine import errors, files

    def lenient(original: Any, path: str, prefix: bytes, size: int) -> Any:
        try:
            return original(path, prefix, size)
        except errors.InvalidFile:
            return 0

    def empty(original: Any, path: str, raw: bytes, size: int) -> Any:
        return Header({}, {}, size) if not bytes(raw).startswith(b"{") else original(path, raw, size)

    plant.replace(files, "header_length", lenient)
    plant.replace(files, "parse_header", empty)


@fault(expects={"F-PARSE-036": "files"}, blast=("parse", "dtype", "load", "qual", "build", "mem"))
def bytes_in_the_order_of_the_header(plant: Plant) -> None:
    """Tensors are read one after another as the header lists them, whatever their offsets say."""

    def in_order(tensors: dict[str, Any]) -> dict[str, Any]:
        at, found = 0, {}
        for name, entry in tensors.items():
            found[name] = entry._replace(begin=at, end=at + entry.nbytes)
            at += entry.nbytes
        return found

    _entries(plant, in_order)


@fault(expects={"F-PARSE-037": "files"}, blast=("parse", "dtype", "mem"), seen_in="web-rwkv PR#61")
def odd_header_lengths_refused(plant: Plant) -> None:
    """A header whose length is no multiple of eight is refused."""
    from reference_engine import errors, files

    def aligned(original: Any, path: str, prefix: bytes, size: int) -> int:
        length: int = original(path, prefix, size)
        if length % 8:
            raise errors.InvalidFile(path, "the header length is no multiple of eight")
        return length

    plant.replace(files, "header_length", aligned)


@fault(expects={"F-PARSE-037": "files"}, blast=("parse", "dtype", "mem"))
def long_padding_refused(plant: Plant) -> None:
    """More than 64 blanks behind the JSON are refused."""
    from reference_engine import errors, files

    most = 64

    def strict(original: Any, path: str, raw: bytes, size: int) -> Any:
        if len(raw) - len(bytes(raw).rstrip(b" ")) > most:
            raise errors.InvalidFile(path, "too many blanks behind the JSON")
        return original(path, raw, size)

    plant.replace(files, "parse_header", strict)


@fault(expects={"F-PARSE-037": "files"}, blast=_FILES)
def blanks_between_tokens_refused(plant: Plant) -> None:
    """Only JSON without white space is understood."""
    from reference_engine import errors, files

    def strict(original: Any, path: str, raw: bytes, size: int) -> Any:
        if re.search(rb'[:,{]\s+"', bytes(raw)):
            raise errors.InvalidFile(path, "white space between tokens")
        return original(path, raw, size)

    plant.replace(files, "parse_header", strict)


@fault(expects={"F-PARSE-040": "files"}, blast=_FILES, seen_in="realizar src/apr/mod.rs, kekzl/imp#1603")
def unknown_dtypes_are_f32(plant: Plant) -> None:
    """A dtype that nobody knows is taken for F32."""
    from reference_engine import header

    def known(fields: Raw) -> None:
        if isinstance(fields["dtype"], str) and fields["dtype"] not in header.DTYPE_BITS:
            fields["dtype"] = "F32"

    _raw_entry(plant, known)


@fault(expects={"F-PARSE-040": "files"}, blast=("parse", "dtype"))
def bytes_for_all_small_dtypes(plant: Plant) -> None:
    """Every dtype of eight bits is called U8."""
    from reference_engine import header

    byte = 8

    def small(fields: Raw) -> None:
        if isinstance(fields["dtype"], str) and header.DTYPE_BITS.get(fields["dtype"]) == byte:
            fields["dtype"] = "U8"

    _raw_entry(plant, small)


@fault(expects={"F-PARSE-040": "files"}, blast=("parse", "dtype"))
def half_bytes_unknown(plant: Plant) -> None:
    """Dtypes of less than eight bits are refused as a broken file, and not as a dtype that is not supported."""
    from reference_engine import header

    for name in ("F4", "F6_E2M3", "F6_E3M2"):
        header.DTYPE_BITS.pop(name)
    _raw_entry(plant, lambda _fields: None)
