"""Classes of malformed files, one module a family."""

from conformance.corpus.safetensors.classes import CorpusClass
from conformance.corpus.safetensors.malformed import (
    encoding,
    entries,
    foreign,
    framing,
    metadata,
    offsets,
    shapes,
    syntax,
    truncation,
)

_FAMILIES = (framing, encoding, syntax, entries, shapes, offsets, metadata, truncation, foreign)

MALFORMED: tuple[CorpusClass, ...] = tuple(found for module in _FAMILIES for found in module.FAMILY.classes)
