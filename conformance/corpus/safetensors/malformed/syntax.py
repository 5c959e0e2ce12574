"""Faults in the JSON text: what looks like JSON and is not."""

from __future__ import annotations

import re
from collections.abc import Sequence

from conformance.corpus.safetensors.builder import Member, json_string
from conformance.corpus.safetensors.classes import Case, Family, Plain, Source, plain
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("syntax", row="F-PARSE-042")


def _places(text: str, pattern: str) -> list[int]:
    return [found.start() for found in re.finditer(pattern, text)]


def _edited(base: Plain, text: str) -> Case:
    return base.broken(base.parts.with_header(text))


def _insert(source: Source, base: Plain, pattern: str, options: Sequence[str]) -> Case:
    """Insert one of the options before a place that matches the pattern."""
    text = base.parts.json()
    at = source.pick(_places(text, pattern))
    return _edited(base, text[:at] + source.pick(options) + text[at:])


def _without(source: Source, base: Plain, pattern: str) -> Case:
    """Remove one character that matches the pattern."""
    text = base.parts.json()
    at = source.pick(_places(text, pattern))
    return _edited(base, text[:at] + text[at + 1 :])


@FAMILY.rejects(Rule.JSON)
def bracket_missing(source: Source) -> Case:
    """One closing bracket or brace is missing."""
    return _without(source, plain(source), r"[\]}]")


@FAMILY.rejects(Rule.JSON)
def bracket_swapped(source: Source) -> Case:
    """One closing bracket is a brace, or the other way round."""
    base = plain(source)
    text = base.parts.json()
    at = source.pick(_places(text, r"[\]}]"))
    return _edited(base, text[:at] + ("}" if text[at] == "]" else "]") + text[at + 1 :])


@FAMILY.rejects(Rule.JSON)
def trailing_comma(source: Source) -> Case:
    """A comma stands before a closing bracket or brace."""
    return _insert(source, plain(source), r"[\]}]", [","])


@FAMILY.rejects(Rule.JSON)
def separator_missing(source: Source) -> Case:
    """A comma or a colon is missing between members."""
    return _without(source, plain(source), r'(?<=[}\]"]),|:')


@FAMILY.rejects(Rule.JSON)
def separator_doubled(source: Source) -> Case:
    """A comma or a colon stands twice."""
    base = plain(source)
    text = base.parts.json()
    at = source.pick(_places(text, "[,:]"))
    return _edited(base, text[:at] + text[at] + text[at:])


@FAMILY.rejects(Rule.JSON)
def comment(source: Source) -> Case:
    """A comment stands between two tokens."""
    return _insert(source, plain(source), r"[,:\]}]", ["/**/", "/* weights */", "//\n", "#\n"])


@FAMILY.rejects(Rule.JSON)
def single_quotes(source: Source) -> Case:
    """Strings stand in single quotes, as Python prints a dictionary."""
    base = plain(source)
    text = base.parts.json()
    return _edited(base, source.pick([text.replace('"', "'"), text.replace('"dtype"', "'dtype'")]))


@FAMILY.rejects(Rule.JSON)
def bare_key(source: Source) -> Case:
    """A key stands without quotes."""
    base = plain(source)
    key = source.pick(["dtype", "shape", "data_offsets"])
    return _edited(base, base.parts.json().replace(f'"{key}"', key, 1))


@FAMILY.rejects(Rule.JSON)
def control_character(source: Source) -> Case:
    """A name holds a control character that JSON wants escaped."""
    base = plain(source)
    first = base.parts.members[0]
    raw = chr(source.integer(1, 31))
    return base.broken(base.parts.with_member(0, Member(f'{first.key[:-1]}{raw}"', first.value)))


@FAMILY.rejects(Rule.JSON)
def unknown_escape(source: Source) -> Case:
    """A name holds an escape that JSON does not have."""
    base = plain(source)
    first = base.parts.members[0]
    escape = source.pick(["\\x41", "\\q", "\\0", "\\u12", "\\u00G1", "\\u{41}", "\\'", "\\U00000041"])
    return base.broken(base.parts.with_member(0, Member(f'{first.key[:-1]}{escape}"', first.value)))


@FAMILY.rejects(Rule.JSON)
def string_open(source: Source) -> Case:
    """One quotation mark is missing."""
    return _without(source, plain(source), '"')


@FAMILY.rejects(Rule.JSON)
def not_a_number(source: Source) -> Case:
    """A dimension or an offset is NaN or infinite, as some writers spell it."""
    return _number(source, ["NaN", "Infinity", "-Infinity", "nan", "inf"])


@FAMILY.rejects(Rule.JSON)
def odd_integer(source: Source) -> Case:
    """A number is spelled in a way that JSON forbids: leading zero, plus, hexadecimal, separators."""
    base = plain(source)
    text = base.parts.json()
    found = source.pick(list(re.finditer(r"(?<=[\[,])\d+(?=[\],])", text)))
    digits = found.group()
    spelled = source.pick(["0" + digits, "+" + digits, hex(int(digits)), digits + ".", digits + "_0", digits + "L"])
    return _edited(base, text[: found.start()] + spelled + text[found.end() :])


def _number(source: Source, options: Sequence[str]) -> Case:
    """Replace one number of the header by one of the options."""
    base = plain(source)
    text = base.parts.json()
    found = source.pick(list(re.finditer(r"(?<=[\[,])\d+(?=[\],])", text)))
    return _edited(base, text[: found.start()] + source.pick(options) + text[found.end() :])


@FAMILY.rejects(Rule.JSON)
def second_document(source: Source) -> Case:
    """After the object stands another JSON value."""
    base = plain(source)
    text = base.parts.json()
    return _edited(base, text + source.pick([" ", "", "\n"]) + source.pick(["{}", "null", "0", "[]", text]))


@FAMILY.rejects(Rule.JSON)
def root_not_object(source: Source) -> Case:
    """The header is JSON and not an object."""
    base = plain(source)
    text = base.parts.json()
    return _edited(base, source.pick(["null", "true", "0", '"{}"', "[]", f"[{text}]", json_string(text)]))


@FAMILY.rejects(Rule.JSON)
def word_misspelled(source: Source) -> Case:
    """A bare word stands where a value belongs: None, True, undefined."""
    base = plain(source)
    field = source.pick(["dtype", "shape", "data_offsets"])
    word = source.pick(["None", "True", "undefined", "nul", "NULL"])
    return base.broken(base.parts.with_member(0, base.parts.members[0].with_field(field, word)))


@FAMILY.rejects(Rule.SHAPE)
def depth_bomb(source: Source) -> Case:
    """Brackets or braces are nested hundreds to tens of thousands deep: a stack may overflow."""
    base = plain(source)
    depth = source.pick([200, 1_000, 5_000, 20_000, 100_000])
    opening, closing = source.pick([("[", "]"), ('{"a":', "}")])
    bomb = opening * depth + ("1" if source.integer(0, 1) else "{}") + closing * depth
    field = source.pick(["shape", "dtype", "data_offsets"])
    return base.broken(base.parts.with_member(0, base.parts.members[0].with_field(field, bomb)))


@FAMILY.rejects(Rule.JSON)
def depth_never_closed(source: Source) -> Case:
    """The header is nothing but opening brackets."""
    base = plain(source)
    depth = source.integer(500, 60_000)
    opening = source.pick(["[", '{"a":'])
    return _edited(base, '{"a":' + opening * depth)


@FAMILY.rejects(Rule.SHAPE)
def number_bomb(source: Source) -> Case:
    """A number has thousands of digits, where quadratic conversion takes its time."""
    digits = "9" * source.pick([30, 500, 5_000, 50_000, 300_000])
    return _number(source, [digits, f"1{digits}", f"0.{digits}", f"1e{digits[:30]}"])


@FAMILY.rejects(Rule.JSON)
def mark_bit_flipped(source: Source) -> Case:
    """One bit of one bracket, colon or quotation mark is flipped."""
    base = plain(source)
    raw = bytearray(base.parts.header_bytes())
    at = source.pick(_places(base.parts.json(), r'[\[\]{}:"]'))
    raw[at] ^= 1 << source.integer(0, 7)
    return base.broken(base.parts.with_header(bytes(raw)))


@FAMILY.rejects(Rule.ENTRY)
def keyword_bit_flipped(source: Source) -> Case:
    """One bit of one letter of dtype, shape or data_offsets is flipped."""
    base = plain(source)
    raw = bytearray(base.parts.header_bytes())
    found = source.pick(list(re.finditer('(?<=")(dtype|shape|data_offsets)(?=")', base.parts.json())))
    raw[source.integer(found.start(), found.end() - 1)] ^= 1 << source.integer(0, 6)
    return base.broken(base.parts.with_header(bytes(raw)))


@FAMILY.rejects(Rule.SIZE)
def digit_bit_flipped(source: Source) -> Case:
    """One bit of one digit of an offset is flipped."""
    base = plain(source)
    text = base.parts.json()
    pairs = [found.span(1) for found in re.finditer(r"data_offsets\":\[(\d+,\d+)\]", text)]
    at = source.pick([i for begin, end in pairs for i in range(begin, end) if text[i] != ","])
    raw = bytearray(base.parts.header_bytes())
    raw[at] ^= 1 << source.integer(0, 7)
    return base.broken(base.parts.with_header(bytes(raw)))
