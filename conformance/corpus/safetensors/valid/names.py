"""Valid files whose names or metadata are unusual: any JSON string is one, and comes back exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from conformance.corpus.safetensors.builder import Layout, Tensor, document, json_string
from conformance.corpus.safetensors.classes import Case, Family, Plain, Source, filler, plain
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("names", row="F-PARSE-038")
METADATA_FAMILY = Family("keyvalue", row="F-PARSE-045")


def _named(source: Source, *names: str) -> Case:
    """The base's tensors, and one of our own for each name."""
    base = plain(source)
    tag = source.integer(0, 65_535)
    mine = tuple(Tensor(name, "F32", (2,), filler(tag + at, 8)) for at, name in enumerate(names))
    layout = Layout((*base.layout.tensors, *mine))
    return base.odd(document(layout), layout.contents())


@FAMILY.accepts(Rule.NAMES)
def unicode(source: Source) -> Case:
    """A name of letters from any script, and beyond the first plane."""
    return _named(
        source, source.pick(["größe", "重み", "вес", "וזן", "weights-🧮", "\U0001d498", "e\u0301", "﷽", "\u200b"])
    )


@FAMILY.accepts(Rule.NAMES)
def normal_form_twins(source: Source) -> Case:
    """Two names that differ only in their Unicode normal form."""
    return _named(source, *source.pick([("caf\u00e9", "cafe\u0301"), ("\u212b", "\u00c5"), ("ﬁ", "fi")]))


@FAMILY.accepts(Rule.NAMES)
def case_twins(source: Source) -> Case:
    """Two names that differ only in upper and lower case."""
    return _named(source, *source.pick([("Weight", "weight"), ("W", "w"), ("A.B", "a.b"), ("K", "\u212a")]))


@FAMILY.accepts(Rule.NAMES)
def prefix_twins(source: Source) -> Case:
    """One name is the beginning of another, or differs from it by white space."""
    return _named(source, *source.pick([("x", "x.y"), ("x", "x "), ("x", " x"), ("x", "x\u00a0"), ("x", "xx")]))


@FAMILY.accepts(Rule.NAMES)
def like_metadata(source: Source) -> Case:
    """A name with leading underscores that is not `__metadata__`."""
    names = ["__w__", "__metadata", "__proto__", "_metadata_", "__METADATA__", "__metadata__.w", "__init__"]
    return _named(source, source.pick(names))


@FAMILY.accepts(Rule.NAMES)
def like_path(source: Source) -> Case:
    """A name that looks like a path or a device."""
    names = ["../../etc/passwd", "/dev/null", "C:\\w", "a/b/c", "..", "%2e%2e", "~/w", "w;rm", "${HOME}", "CON"]
    return _named(source, source.pick(names))


@FAMILY.accepts(Rule.NAMES)
def like_field(source: Source) -> Case:
    """A name that is also the name of a field or a dtype."""
    return _named(source, source.pick(["dtype", "shape", "data_offsets", "F32", "null", "true", "0", "[0,8]", "{}"]))


@FAMILY.accepts(Rule.NAMES)
def empty(source: Source) -> Case:
    """The empty name."""
    return _named(source, "")


@FAMILY.accepts(Rule.NAMES)
def escaped_characters(source: Source) -> Case:
    """A name with quotation marks, backslashes, line breaks or NUL, all escaped."""
    return _named(source, source.pick(['say "w"', "back\\slash", "line\nbreak", "nul\0tail", "\t", "\x7f", "\x1b[0m"]))


@FAMILY.accepts(Rule.NAMES)
def long(source: Source) -> Case:
    """A name of hundreds to tens of thousands of characters."""
    return _named(source, source.pick("wé") * source.integer(256, 30_000))


@FAMILY.accepts(Rule.NAMES)
def long_twins(source: Source) -> Case:
    """Two long names that differ in their last character."""
    stem = "layer." * source.integer(12, 200)
    return _named(source, stem + "a", stem + "b")


# --- metadata -----------------------------------------------------------------------------------------


def _with_pairs(base: Plain, pairs: Sequence[tuple[str, str]], at: int = 0) -> Case:
    layout = replace(base.layout, metadata=tuple(pairs), metadata_at=at)
    return base.odd(document(layout), layout.contents())


@METADATA_FAMILY.accepts(Rule.METADATA)
def ordinary(source: Source) -> Case:
    """A few keys and values, as writers leave them."""
    pairs = [("format", "pt"), ("step", str(source.integer(0, 10**6)))]
    return _with_pairs(plain(source), pairs)


@METADATA_FAMILY.accepts(Rule.METADATA)
def absent_or_empty(source: Source) -> Case:
    """The metadata is an empty object."""
    return _with_pairs(plain(source), [])


@METADATA_FAMILY.accepts(Rule.ORDER)
def not_first(source: Source) -> Case:
    """The metadata stands between tensors or after them."""
    base = plain(source, least=2)
    return _with_pairs(base, [("format", "pt")], source.integer(1, len(base.layout.tensors)))


@METADATA_FAMILY.accepts(Rule.METADATA)
def like_entry(source: Source) -> Case:
    """Keys of the metadata are called dtype, shape and data_offsets, or like a tensor."""
    base = plain(source)
    pairs = [("dtype", "F32"), ("shape", "[2]"), ("data_offsets", "[0,8]"), (base.layout.tensors[0].name, "w")]
    return _with_pairs(base, pairs[source.integer(0, 3) :])


@METADATA_FAMILY.accepts(Rule.METADATA)
def like_json(source: Source) -> Case:
    """Values are JSON text, code or whole headers, and stay strings."""
    values = ["null", "1", "true", "[]", '{"a":1}', "{{ x }}", "__import__('os')", "NaN", "1e999"]
    base = plain(source)
    return _with_pairs(base, [("config", source.pick([*values, base.parts.json()]))])


@METADATA_FAMILY.accepts(Rule.METADATA)
def any_text(source: Source) -> Case:
    """Keys and values are empty, foreign or full of escapes."""
    texts = ["", " ", "größe", "重み", "🧮", "line\nbreak", "nul\0tail", '"quoted"', "back\\slash", "\u2028", "\x7f"]
    return _with_pairs(plain(source), [(source.pick(texts), source.pick(texts))])


@METADATA_FAMILY.accepts(Rule.METADATA)
def named_like_itself(source: Source) -> Case:
    """A key of the metadata is `__metadata__`, or differs from another only in case."""
    pairs = source.pick([[("__metadata__", "x")], [("Format", "a"), ("format", "b")], [("a", "1"), ("a ", "2")]])
    return _with_pairs(plain(source), pairs)


@METADATA_FAMILY.accepts(Rule.METADATA)
def large(source: Source) -> Case:
    """One value of up to 64 KiB, or a thousand keys."""
    size = source.integer(1_000, 65_536)
    pairs = source.pick([[("blob", "x" * size)], [(f"k{i}", str(size)) for i in range(1_000)]])
    return _with_pairs(plain(source), pairs)


@METADATA_FAMILY.accepts(Rule.METADATA)
def escaped_text(source: Source) -> Case:
    """Keys and values are spelled with escapes where plain characters would do, solidus included."""
    base = plain(source)
    texts = ["größe", "🧮", "a/b", "plain"]
    key, value = source.pick(texts), source.pick(texts)
    layout = replace(base.layout, metadata=((key, value),))
    text = "{" + f"{_ascii(key)}:{_ascii(value)}" + "}"
    parts = document(layout)
    return base.odd(parts.with_member(0, replace(parts.members[0], value=text)), layout.contents())


def _ascii(text: str) -> str:
    return json_string(text, ascii_only=True).replace("/", "\\/")
