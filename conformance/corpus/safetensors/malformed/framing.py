"""Faults in the first eight bytes: what the file says about the length of its header."""

from __future__ import annotations

from dataclasses import replace

from conformance.corpus.safetensors.builder import PREFIX_BYTES
from conformance.corpus.safetensors.classes import Case, Family, Plain, Source, filler, plain
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("framing", row="F-PARSE-042")
_LIMIT = 100_000_000


def _with_length(base: Plain, length: int) -> Case:
    return base.broken(replace(base.parts, length=length))


@FAMILY.rejects(Rule.LENGTH)
def length_zero(source: Source) -> Case:
    """The header's length is 0, so that there is no JSON at all."""
    return _with_length(plain(source), 0)


@FAMILY.rejects(Rule.LENGTH)
def length_cuts_json(source: Source) -> Case:
    """The length ends inside the JSON text."""
    base = plain(source)
    return _with_length(base, source.integer(1, len(base.parts.json()) - 1))


@FAMILY.rejects(Rule.INDEXED)
def length_cuts_padding(source: Source) -> Case:
    """The length leaves out some padding, which then stands before the tensors' bytes and shifts them."""
    base = plain(source)
    parts = replace(base.parts, padding=b" " * 8)
    whole = len(parts.header_bytes())
    return base.broken(replace(parts, length=source.integer(len(parts.json()), whole - 1)))


@FAMILY.rejects(Rule.LENGTH)
def length_swallows_payload(source: Source) -> Case:
    """The length reaches into the tensors' bytes, which are then taken for JSON."""
    base = plain(source)
    extra = source.integer(1, len(base.parts.buffer))
    return _with_length(base, len(base.parts.header_bytes()) + extra)


@FAMILY.rejects(Rule.LENGTH)
def length_past_end(source: Source) -> Case:
    """The length reaches a little past the end of the file."""
    base = plain(source)
    return _with_length(base, len(base.data) - PREFIX_BYTES + source.integer(1, 4096))


@FAMILY.rejects(Rule.LIMIT)
def length_allocatable(source: Source) -> Case:
    """The length is over the limit and could still be allocated, in a file of a few hundred bytes."""
    return _with_length(plain(source), source.integer(_LIMIT + 1, 2**32))


@FAMILY.rejects(Rule.LENGTH)
def length_wraps(source: Source) -> Case:
    """The length lies so close to 2**64 that adding the eight bytes before it wraps around."""
    return _with_length(plain(source), 2**64 - 1 - source.integer(0, 64))


@FAMILY.rejects(Rule.LENGTH)
def length_above_32_bits(source: Source) -> Case:
    """The low 32 bits of the length are right, and a higher bit is set."""
    base = plain(source)
    return _with_length(base, len(base.parts.header_bytes()) + (source.integer(1, 2**30) << 32))


@FAMILY.rejects(Rule.LENGTH)
def length_sign_bit(source: Source) -> Case:
    """The sign bit is set on a length that is right otherwise: negative to a signed reader."""
    base = plain(source)
    return _with_length(base, len(base.parts.header_bytes()) | 1 << 63)


@FAMILY.rejects(Rule.PREFIX)
def length_big_endian(source: Source) -> Case:
    """The length is written big-endian."""
    base = plain(source)
    prefix = len(base.parts.header_bytes()).to_bytes(PREFIX_BYTES, "big")
    return base.broken(replace(base.parts, prefix=prefix))


@FAMILY.rejects(Rule.PREFIX)
def length_four_bytes(source: Source) -> Case:
    """The length is a 32-bit integer, and the header follows at byte 4."""
    base = plain(source)
    prefix = len(base.parts.header_bytes()).to_bytes(4, "little")
    return base.broken(replace(base.parts, prefix=prefix))


@FAMILY.rejects(Rule.PREFIX)
def length_missing(source: Source) -> Case:
    """The file begins with the JSON text itself."""
    base = plain(source)
    return base.broken(replace(base.parts, prefix=b""))


@FAMILY.rejects(Rule.PREFIX)
def length_as_text(source: Source) -> Case:
    """The length is written as decimal digits, left- or right-aligned in eight bytes."""
    base = plain(source)
    digits = str(len(base.parts.header_bytes()))
    text = source.pick([digits.rjust(8, "0"), digits.rjust(8), digits.ljust(8)])
    return base.broken(replace(base.parts, prefix=text.encode()))


@FAMILY.rejects(Rule.PREFIX)
def junk_before(source: Source) -> Case:
    """Something else stands before a whole, valid file."""
    base = plain(source)
    junk = source.pick([b"\n", b"\xef\xbb\xbf", b"SAFETENS", b"\0" * 8, b"#!/bin/sh\n"])
    return base.broken(junk + base.data)


@FAMILY.rejects(Rule.LENGTH)
def length_bit_flipped(source: Source) -> Case:
    """One bit of the length is flipped."""
    base = plain(source)
    return _with_length(base, len(base.parts.header_bytes()) ^ 1 << source.integer(0, 63))


@FAMILY.rejects(Rule.COMPLETE, row="F-PARSE-043")
def shorter_than_prefix(source: Source) -> Case:
    """The file has fewer than the eight bytes of the length, none at all included."""
    base = plain(source)
    padded = replace(base.parts, padding=filler_spaces(source))
    control = replace(base, parts=padded, data=padded.encode())
    return control.broken(control.data[: source.integer(0, PREFIX_BYTES - 1)])


def filler_spaces(source: Source) -> bytes:
    """Up to 2,000 spaces, so that even the first bytes of the file differ between examples."""
    return b" " * source.integer(0, 2000)


@FAMILY.rejects(Rule.LENGTH)
def header_of_junk(source: Source) -> Case:
    """The length is right and the header holds bytes without structure."""
    base = plain(source)
    size = len(base.parts.header_bytes())
    return base.broken(base.parts.with_header(b"\xfe" + filler(source.integer(0, 65_535), size - 1)))
