"""Faults in the header's bytes before JSON is looked at: its encoding, its first byte and its padding."""

from __future__ import annotations

from dataclasses import replace

from conformance.corpus.safetensors.builder import Member, pad
from conformance.corpus.safetensors.classes import Case, Family, Source, plain, with_metadata
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("encoding", row="F-PARSE-042")


def _inside_name(source: Source, raw: bytes) -> Case:
    """Put raw bytes into the first tensor's name or into a metadata value."""
    base = with_metadata(plain(source), [("note", "as exported")])
    text = base.parts.json()
    place = source.pick(['"as exp', f"{base.parts.members[1].key[:-1]}"])
    at = text.index(place) + len(place)
    return base.broken(base.parts.with_header(pad(text[:at].encode() + raw + text[at:].encode())))


@FAMILY.rejects(Rule.UTF8)
def byte_order_mark(source: Source) -> Case:
    """A UTF-8 byte-order mark stands before the opening brace."""
    base = plain(source)
    return base.broken(base.parts.with_header(pad(b"\xef\xbb\xbf" + base.parts.json().encode())))


@FAMILY.rejects(Rule.UTF8)
def wide_characters(source: Source) -> Case:
    """The header is UTF-16 or UTF-32, with or without a byte-order mark."""
    base = plain(source)
    codec = source.pick(["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "utf-16", "utf-32"])
    return base.broken(base.parts.with_header(base.parts.json().encode(codec)))


@FAMILY.rejects(Rule.UTF8)
def stray_byte(source: Source) -> Case:
    """A byte that begins no UTF-8 sequence stands inside a string, as Latin-1 text would leave it."""
    return _inside_name(source, bytes([source.integer(0x80, 0xC1)]))


@FAMILY.rejects(Rule.UTF8)
def overlong(source: Source) -> Case:
    """An ASCII character is spelled in two or three bytes."""
    code = source.integer(0, 0x7F)
    two = bytes([0xC0 | code >> 6, 0x80 | code & 0x3F])
    three = bytes([0xE0, 0x80 | code >> 6, 0x80 | code & 0x3F])
    return _inside_name(source, source.pick([two, three]))


@FAMILY.rejects(Rule.UTF8)
def surrogate_bytes(source: Source) -> Case:
    """A surrogate, or a pair of them, is encoded as if it were a character."""
    high = chr(source.integer(0xD800, 0xDBFF)).encode("utf-8", "surrogatepass")
    low = chr(source.integer(0xDC00, 0xDFFF)).encode("utf-8", "surrogatepass")
    return _inside_name(source, source.pick([high, low, high + low]))


@FAMILY.rejects(Rule.UTF8)
def sequence_cut(source: Source) -> Case:
    """A multi-byte character lacks its last byte."""
    char = chr(source.pick([0xE9, 0x3042, 0x1F600]) + source.integer(0, 15)).encode()
    return _inside_name(source, char[:-1])


@FAMILY.rejects(Rule.UTF8)
def beyond_unicode(source: Source) -> Case:
    """A four-byte sequence stands for a number above the last character of Unicode."""
    raw = bytes([source.integer(0xF4, 0xF7), 0x90 + source.integer(0, 0x2F), 0x80, 0x80])
    return _inside_name(source, raw)


@FAMILY.rejects(Rule.PADDING)
def nul_padding(source: Source) -> Case:
    """The header is padded with NUL instead of spaces."""
    base = plain(source)
    text = base.parts.json().encode()
    return base.broken(base.parts.with_header(text + b"\0" * (-len(text) % 8 or 8)))


@FAMILY.rejects(Rule.JSON)
def nul_then_header(source: Source) -> Case:
    """After the JSON text and a NUL stands a second header, which says something else."""
    base = plain(source)
    text = base.parts.json()
    other = text.replace("F32", "I32").replace('F16"', 'I16"')
    return base.broken(base.parts.with_header(f"{text}\0{other}"))


@FAMILY.rejects(Rule.JSON)
def nul_in_text(source: Source) -> Case:
    """A NUL byte stands between two members, or inside a name."""
    base = plain(source, least=2)
    text = base.parts.json()
    key = base.parts.members[0].key
    at = source.pick([text.index("},") + 2, text.index(key) + len(key) - 1])
    return base.broken(base.parts.with_header(text[:at] + "\0" + text[at:]))


@FAMILY.rejects(Rule.JSON)
def header_zeroed(source: Source) -> Case:
    """The tail of the header is zeros, as a file that was reserved and not written."""
    base = plain(source)
    header = base.parts.header_bytes()
    keep = source.integer(0, len(base.parts.json()) - 1)
    return base.broken(base.parts.with_header(header[:keep] + b"\0" * (len(header) - keep)))


@FAMILY.leaves_open(Rule.PADDING, official_accepts=True, note="any JSON white space passes as padding")
def other_padding(source: Source) -> Case:
    """The header is padded with tabs or line breaks."""
    base = plain(source)
    text = base.parts.json().encode()
    space = source.pick([b"\t", b"\n", b"\r\n"])
    padded = text + space * source.integer(1, 8)
    return base.broken(replace(base.parts, multiple=0).with_header(padded), (base.contents,))


@FAMILY.leaves_open(Rule.BRACE, official_accepts=True, note="its own tests demand that leading white space passes")
def leading_space(source: Source) -> Case:
    """White space stands before the opening brace."""
    base = plain(source)
    lead = source.pick([" ", "\n", "\t", "\r\n"]) * source.integer(1, 16)
    return base.broken(base.parts.with_header(lead + base.parts.json()), (base.contents,))


@FAMILY.leaves_open(Rule.OBSCURE, official_accepts=False)
def lone_surrogate_escape(source: Source) -> Case:
    """A name holds the escape of half a surrogate pair, which is legal JSON and no character."""
    base = plain(source)
    half = source.pick(["\\ud800", "\\udc00", "\\udfff\\ud800"])
    first = base.parts.members[0]
    renamed = Member(f'{first.key[:-1]}{half}"', first.value)
    return base.broken(base.parts.with_member(0, renamed))
