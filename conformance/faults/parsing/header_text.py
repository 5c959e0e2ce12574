"""The JSON of a header: encoding, length, nesting and what stands in it twice."""

from __future__ import annotations

import re
from typing import Any

from conformance.faults.parsing.changing import FILES, Raw, header_bytes, raw_entry
from conformance.faults.planting import Plant, fault
from reference_engine.header import Header


@fault(expects={"F-PARSE-042": "files"}, blast=FILES)
def bad_utf8_replaced(plant: Plant) -> None:
    """Bytes that are no UTF-8 become replacement characters."""
    header_bytes(plant, lambda raw: raw.decode("utf-8", "replace").encode())


@fault(expects={"F-PARSE-042": "files"}, blast=FILES)
def nul_padding_taken_for_blanks(plant: Plant) -> None:
    """Zero bytes behind the JSON are cut off."""
    header_bytes(plant, lambda raw: raw.rstrip(b"\0"))


@fault(expects={"F-PARSE-042": "files"}, blast=FILES)
def what_follows_the_json_ignored(plant: Plant) -> None:
    """Everything behind the first JSON value is ignored."""
    import json

    def first(raw: bytes) -> bytes:
        try:
            text = raw.decode()
            return text[: json.JSONDecoder().raw_decode(text)[1]].encode()
        except (ValueError, RecursionError):
            return raw

    header_bytes(plant, first)


@fault(expects={"F-PARSE-042": "files"}, blast=FILES)
def trailing_commas_let_through(plant: Plant) -> None:
    """A comma before a closing bracket is forgiven, and a bracket that is missing at the end is put there."""

    def mended(raw: bytes) -> bytes:
        new = re.sub(rb",\s*([}\]])", rb"\1", raw).rstrip()
        return new + b"}" * max(0, new.count(b"{") - new.count(b"}"))

    header_bytes(plant, mended)


@fault(expects={"F-PARSE-042": "files"}, blast=FILES, seen_in="runai PR#121")
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


@fault(expects={"F-PARSE-042": "files"}, blast=FILES)
def empty_header_is_no_tensors(plant: Plant) -> None:
    """A header of length zero is taken for a file without tensors."""
    from reference_engine import files

    def empty(original: Any, path: str, raw: bytes, size: int) -> Any:
        return original(path, raw, size) if raw else Header({}, {}, size)

    plant.replace(files, "parse_header", empty)


@fault(expects={"F-PARSE-042": "files"}, blast=FILES)
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

    header_bytes(plant, defaulted)


@fault(expects={"F-PARSE-042": "files"}, blast=FILES)
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

    header_bytes(plant, merged)


def _twice(pairs: list[tuple[str, Any]]) -> list[str]:
    keys = [key for key, _ in pairs]
    return [key for key in set(keys) if keys.count(key) > 1]


@fault(expects={"F-PARSE-042": "files"}, blast=FILES, crash=True)
def deep_nesting_ends_the_process(plant: Plant) -> None:
    """The header goes to a parser that calls itself for every bracket, until its stack is gone."""
    import os

    deepest = 1000

    def crash(raw: bytes) -> bytes:
        if max(raw.count(b"["), raw.count(b"{")) > deepest:
            os.abort()
        return raw

    header_bytes(plant, crash)


@fault(expects={"F-PARSE-042": "files"}, blast=FILES)
def nan_is_a_number(plant: Plant) -> None:
    """A dimension that JSON has no number for is taken to be what the bytes leave for it."""
    import math

    from reference_engine import header

    def guessed(fields: Raw) -> None:
        shape, offsets = fields["shape"], fields["data_offsets"]
        if isinstance(shape, list) and any(type(size) is float and not math.isfinite(size) for size in shape):
            fields["shape"] = [(offsets[1] - offsets[0]) * 8 // header.DTYPE_BITS[fields["dtype"]]]

    raw_entry(plant, guessed)
