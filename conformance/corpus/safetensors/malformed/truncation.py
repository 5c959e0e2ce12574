"""Files that lost a part of their bytes."""

from __future__ import annotations

from dataclasses import replace

from conformance.corpus.safetensors.builder import PREFIX_BYTES
from conformance.corpus.safetensors.classes import Case, Family, Source, plain, plain_from
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("truncation", row="F-PARSE-043")


@FAMILY.rejects(Rule.COMPLETE)
def in_header(source: Source) -> Case:
    """The file ends inside the header."""
    base = plain(source)
    start = len(base.data) - len(base.parts.buffer)
    return base.broken(base.data[: source.integer(PREFIX_BYTES, start - 1)])


@FAMILY.rejects(Rule.COMPLETE)
def after_header(source: Source) -> Case:
    """The file ends right behind the header: every tensor is announced and none is there."""
    base = plain(source)
    return base.broken(base.data[: len(base.data) - len(base.parts.buffer)])


@FAMILY.rejects(Rule.COMPLETE)
def in_first_tensor(source: Source) -> Case:
    """The file ends inside the first tensor's bytes."""
    base = plain(source)
    start = len(base.data) - len(base.parts.buffer)
    return base.broken(base.data[: start + source.integer(1, len(base.layout.tensors[0].payload) - 1)])


@FAMILY.rejects(Rule.COMPLETE)
def between_tensors(source: Source) -> Case:
    """The file ends exactly where a later tensor would begin."""
    base = plain(source, least=2)
    lost = sum(len(t.payload) for t in base.layout.tensors[source.integer(1, len(base.layout.tensors) - 1) :])
    return base.broken(base.data[: len(base.data) - lost])


@FAMILY.rejects(Rule.COMPLETE)
def last_bytes(source: Source) -> Case:
    """The file lacks its last one to eight bytes, fewer than the last tensor has."""
    base = plain(source)
    lost = source.integer(1, min(8, len(base.layout.tensors[-1].payload) - 1))
    return base.broken(base.data[:-lost])


@FAMILY.rejects(Rule.COMPLETE)
def first_bytes(source: Source) -> Case:
    """The file lacks its first bytes, as a download that was resumed at the wrong place."""
    base = plain(source)
    return base.broken(base.data[source.integer(1, len(base.data) - len(base.parts.buffer)) :])


@FAMILY.rejects(Rule.COMPLETE)
def block_lost(source: Source) -> Case:
    """Some bytes in the middle of the buffer are gone, and all that follows has moved up."""
    base = plain(source)
    size = len(base.parts.buffer)
    lost = source.integer(1, size - 1)
    at = len(base.data) - size + source.integer(0, size - lost - 1)
    return base.broken(base.data[:at] + base.data[at + lost :])


@FAMILY.rejects(Rule.COMPLETE)
def zeros_stripped(source: Source) -> Case:
    """The last tensor ends in zeros, and a tool has stripped the file of them."""
    base = plain(source)
    last = base.layout.tensors[-1]
    kept = len(last.payload) - source.integer(1, len(last.payload))
    zeroed = replace(last, payload=last.payload[:kept].ljust(len(last.payload), b"\0"))
    whole = plain_from(replace(base.layout, tensors=(*base.layout.tensors[:-1], zeroed)))
    return whole.broken(whole.data.rstrip(b"\0"))
