"""Faults in `__metadata__`, which is a map from strings to strings and nothing else."""

from __future__ import annotations

from dataclasses import replace

from conformance.corpus.safetensors.builder import (
    Contents,
    Member,
    TensorContents,
    entry,
    json_string,
    string_map,
)
from conformance.corpus.safetensors.classes import Case, Family, Source, filler, plain, with_metadata
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("metadata", row="F-PARSE-045")
_KEY = json_string("__metadata__")
_PAIRS = (("format", "pt"), ("step", "1000"))


def _with_value(source: Source, *options: str) -> Case:
    """Metadata whose second value is one of the options, as JSON text."""
    base = with_metadata(plain(source), _PAIRS)
    text = string_map(_PAIRS).replace('"1000"', source.pick(options))
    return base.broken(base.parts.with_member(0, Member(_KEY, text)))


@FAMILY.rejects(Rule.METADATA)
def value_number(source: Source) -> Case:
    """A value is a number."""
    return _with_value(source, "1000", "0", "-1", "1.5", "1e3", "18446744073709551616")


@FAMILY.rejects(Rule.METADATA)
def value_word(source: Source) -> Case:
    """A value is null or a truth value."""
    return _with_value(source, "null", "true", "false")


@FAMILY.rejects(Rule.METADATA)
def value_nested(source: Source) -> Case:
    """A value is a list or an object."""
    return _with_value(source, "[]", '["1000"]', "{}", '{"a":"b"}', '[["1000"]]')


@FAMILY.rejects(Rule.METADATA)
def not_an_object(source: Source) -> Case:
    """The metadata as a whole is a list, a string, a number or a truth value."""
    base = with_metadata(plain(source), _PAIRS)
    text = source.pick(['[["format","pt"]]', '"pt"', "0", "true", '["format"]', json_string('{"format":"pt"}')])
    return base.broken(base.parts.with_member(0, Member(_KEY, text)))


@FAMILY.leaves_open(Rule.SILENT, official_accepts=True, note="null is read as absent")
def null(source: Source) -> Case:
    """The metadata is null, as one known writer leaves it."""
    base = plain(source)
    members = (Member(_KEY, "null"), *base.parts.members)
    return base.broken(replace(base.parts, members=members), (base.contents,))


@FAMILY.leaves_open(Rule.DUPLICATES, official_accepts=True, note="the last value of a key wins")
def key_twice(source: Source) -> Case:
    """A key of the metadata stands twice with different values."""
    base = with_metadata(plain(source), _PAIRS)
    other = source.pick(["2000", "", "1000 "])
    text = string_map([*_PAIRS, ("step", other)])
    last = Contents(base.contents.tensors, {"format": "pt", "step": other})
    return base.broken(base.parts.with_member(0, Member(_KEY, text)), (base.contents, last))


@FAMILY.leaves_open(Rule.DUPLICATES, official_accepts=False)
def block_twice(source: Source) -> Case:
    """`__metadata__` stands twice."""
    base = with_metadata(plain(source), _PAIRS)
    again = Member(_KEY, string_map([("step", source.pick(["2000", ""]))]))
    members = (*base.parts.members, again)
    second = dict([("step", "2000")] if "2000" in str(again.value) else [("step", "")])
    readings = (
        base.contents,
        Contents(base.contents.tensors, second),
        Contents(base.contents.tensors, {**base.contents.metadata, **second}),
    )
    return base.broken(replace(base.parts, members=members), readings)


@FAMILY.rejects(Rule.METADATA)
def shaped_like_tensor(source: Source) -> Case:
    """`__metadata__` is a tensor's entry and owns bytes of the buffer."""
    base = plain(source)
    size = source.integer(1, 16)
    fake = entry("__metadata__", TensorContents("U8", (size,), len(base.parts.buffer), b"\0" * size))
    buffer = base.parts.buffer + filler(size, size)
    members = source.pick([(fake, *base.parts.members), (*base.parts.members, fake)])
    return base.broken(replace(base.parts, members=members, buffer=buffer))


@FAMILY.rejects(Rule.ENTRY)
def key_misspelled(source: Source) -> Case:
    """The metadata stands under another key, where only a tensor may be."""
    base = with_metadata(plain(source), _PAIRS)
    key = source.pick(["__METADATA__", "__meta__", "metadata", "_metadata_", "__metadata__ ", "__metadata__\0"])
    return base.broken(base.parts.with_member(0, Member(json_string(key), string_map(_PAIRS))))


@FAMILY.rejects(Rule.INDEXED)
def hides_tensor(source: Source) -> Case:
    """A tensor's whole entry stands as text inside the metadata, and its bytes are indexed by nothing."""
    base = plain(source, least=2)
    last = base.parts.members[-1]
    text = base.parts.style.object(last.fields())
    hidden = Member(_KEY, string_map([(base.layout.tensors[-1].name, text)]))
    return base.broken(replace(base.parts, members=(hidden, *base.parts.members[:-1])))
