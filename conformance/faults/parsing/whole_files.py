"""Foreign files, padding, the order of bytes and dtypes that nobody knows."""

from __future__ import annotations

import re
from typing import Any

from conformance.faults.parsing.changing import FILES, Raw, checked_entries, raw_entry
from conformance.faults.planting import Plant, fault
from reference_engine.header import Header


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

    checked_entries(plant, in_order)


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


@fault(expects={"F-PARSE-037": "files"}, blast=FILES)
def blanks_between_tokens_refused(plant: Plant) -> None:
    """Only JSON without white space is understood."""
    from reference_engine import errors, files

    def strict(original: Any, path: str, raw: bytes, size: int) -> Any:
        if re.search(rb'[:,{]\s+"', bytes(raw)):
            raise errors.InvalidFile(path, "white space between tokens")
        return original(path, raw, size)

    plant.replace(files, "parse_header", strict)


@fault(expects={"F-PARSE-040": "files"}, blast=FILES, seen_in="realizar src/apr/mod.rs, kekzl/imp#1603")
def unknown_dtypes_are_f32(plant: Plant) -> None:
    """A dtype that nobody knows is taken for F32."""
    from reference_engine import header

    def known(fields: Raw) -> None:
        if isinstance(fields["dtype"], str) and fields["dtype"] not in header.DTYPE_BITS:
            fields["dtype"] = "F32"

    raw_entry(plant, known)


@fault(expects={"F-PARSE-040": "files"}, blast=("parse", "dtype"))
def bytes_for_all_small_dtypes(plant: Plant) -> None:
    """Every dtype of eight bits is called U8."""
    from reference_engine import header

    byte = 8

    def small(fields: Raw) -> None:
        if isinstance(fields["dtype"], str) and header.DTYPE_BITS.get(fields["dtype"]) == byte:
            fields["dtype"] = "U8"

    raw_entry(plant, small)


@fault(expects={"F-PARSE-040": "files"}, blast=("parse", "dtype"))
def half_bytes_unknown(plant: Plant) -> None:
    """Dtypes of less than eight bits are refused as a broken file, and not as a dtype that is not supported."""
    from reference_engine import header

    for name in ("F4", "F6_E2M3", "F6_E3M2"):
        header.DTYPE_BITS.pop(name)
    raw_entry(plant, lambda _fields: None)
