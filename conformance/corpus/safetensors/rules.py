"""The rules of the written format that a corpus class appeals to, in our own words.

Source: the README of the safetensors project, sections "Format" and "Notes"; JSON itself is RFC 8259. Where
the text is silent or leaves a question to parsers, the rule says so and the demand is `either`.
"""

from __future__ import annotations

from enum import StrEnum


class Demand(StrEnum):
    """What the written format asks of a reader that meets a file of the class."""

    REJECT = "reject"
    ACCEPT = "accept"
    EITHER = "either"


class Rule(StrEnum):
    """One rule of the format; the value is the sentence that reports quote."""

    PREFIX = "The file starts with the header's length as an unsigned little-endian 64-bit integer."
    LENGTH = "The header's length counts exactly the bytes of the header, which lie inside the file."
    LIMIT = "A header longer than 100,000,000 bytes is refused, and nothing is reserved for it."
    UTF8 = "The header is valid UTF-8 without a byte-order mark."
    BRACE = "The header begins with an opening brace."
    PADDING = "Only spaces (0x20) may follow the JSON text inside the header."
    JSON = "The header is one JSON object as RFC 8259 writes it, and nothing else."
    DUPLICATES = "Duplicate keys are not allowed, though the text grants that some parsers let them pass."
    OBSCURE = "Unusual spellings of integers, line breaks and escapes are left to the parser."
    SILENT = "The written format does not say; a reader may accept or refuse."
    ENTRY = "A tensor is an object with exactly one dtype, one shape and one data_offsets."
    DTYPE = "The dtype is one of the format's names, spelled exactly; any other has no known width."
    SHAPE = "The shape is a list of non-negative integers that fit in 64 bits."
    OFFSETS = "data_offsets is a pair of non-negative integers, begin not above end, inside the byte buffer."
    SIZE = "The bytes between begin and end are exactly the product of the shape times the dtype's width."
    WHOLE_BYTES = "A tensor of a dtype narrower than a byte fills whole bytes."
    INDEXED = "The byte buffer is indexed entirely: no holes, and nothing before the first or after the last."
    OWNED = "Each byte of the buffer belongs to one tensor; ranges never overlap."
    RELATIVE = "Offsets count from the start of the byte buffer, not from the start of the file."
    METADATA = "__metadata__ is a map from strings to strings; other JSON values are not allowed in it."
    COMPLETE = "The file holds the whole header and every byte that the header indexes."
    NO_MAGIC = "The first eight bytes are a header length, and the header they announce is a JSON object."
    ORDER = "Neither the order of names in the header nor the order of bytes in the buffer is prescribed."
    NAMES = "A name is any JSON string and comes back exactly, neither normalised nor shortened."
    RANK = "Tensors of rank 0 and tensors with a dimension of 0 are allowed; rank has no limit."
    VALUES = "Values are bytes to be handed on unchanged; NaN and infinity are as good as any other."
    ALIGNMENT = "Nothing promises alignment: not the header's length, not a tensor's offset."
