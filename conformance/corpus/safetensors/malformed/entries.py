"""Faults in a tensor's entry: JSON is right, and the entry is not what the format calls a tensor."""

from __future__ import annotations

from dataclasses import replace

from conformance.corpus.safetensors.builder import (
    DTYPE_BITS,
    Contents,
    TensorContents,
    escaped,
    json_string,
)
from conformance.corpus.safetensors.classes import Case, Family, Plain, Source, plain
from conformance.corpus.safetensors.rules import Rule

FAMILY = Family("entries", row="F-PARSE-042")
_KEYS = ("dtype", "shape", "data_offsets")


def _with_entry(source: Source, base: Plain, field: str, text: str) -> Case:
    """Replace a field's value in one of the entries."""
    index = source.pick(base.parts.tensors())
    return base.broken(base.parts.with_member(index, base.parts.members[index].with_field(field, text)))


def _with_value(source: Source, base: Plain, text: str) -> Case:
    """Replace one entry's value as a whole."""
    index = source.pick(base.parts.tensors())
    return base.broken(base.parts.with_member(index, replace(base.parts.members[index], value=text)))


@FAMILY.rejects(Rule.ENTRY)
def field_missing(source: Source) -> Case:
    """dtype, shape or data_offsets is missing, or all three."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    gone = source.pick([*((key,) for key in _KEYS), _KEYS])
    member = base.parts.members[index]
    kept = tuple(pair for pair in member.fields() if pair[0] not in map(json_string, gone))
    return base.broken(base.parts.with_member(index, replace(member, value=kept)))


@FAMILY.rejects(Rule.ENTRY)
def field_twice(source: Source) -> Case:
    """A field stands twice in one entry, with the same value or another."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    member = base.parts.members[index]
    pair = source.pick(member.fields())
    other = {'"dtype"': '"F32"', '"shape"': "[1]", '"data_offsets"': "[0,4]"}[pair[0]]
    again = (pair[0], source.pick([pair[1], other]))
    fields = source.pick([(again, *member.fields()), (*member.fields(), again)])
    return base.broken(base.parts.with_member(index, replace(member, value=fields)))


@FAMILY.rejects(Rule.ENTRY)
def field_other_case(source: Source) -> Case:
    """A field's key is capitalised or spelled in another convention."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    member = base.parts.members[index]
    old = source.pick(_KEYS)
    new = source.pick([old.title(), old.upper(), old.replace("_", "") + " ", old + "s", "dataOffsets"])
    fields = tuple((json_string(new) if k == json_string(old) else k, v) for k, v in member.fields())
    return base.broken(base.parts.with_member(index, replace(member, value=fields)))


@FAMILY.rejects(Rule.ENTRY)
def field_null(source: Source) -> Case:
    """A field is null."""
    return _with_entry(source, plain(source), source.pick(_KEYS), "null")


@FAMILY.rejects(Rule.ENTRY)
def dtype_not_string(source: Source) -> Case:
    """The dtype is a number, a list or a truth value."""
    value = source.pick(["0", "32", "true", '["F32"]', "[]", "4.0", '{"name":"F32"}'])
    return _with_entry(source, plain(source), "dtype", value)


@FAMILY.rejects(Rule.ENTRY, official_accepts=True, note="serde reads an enum's variant from a map with one null member")
def dtype_as_object(source: Source) -> Case:
    """The dtype is an object whose only key is its name."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    member = base.parts.members[index]
    text = '{"' + base.layout.tensors[index].dtype + '":null}'
    return base.broken(base.parts.with_member(index, member.with_field("dtype", text)))


@FAMILY.rejects(Rule.ENTRY)
def value_not_object(source: Source) -> Case:
    """A tensor's entry is a number, a string, null or a truth value."""
    return _with_value(source, plain(source), source.pick(["null", "0", '"F32"', "true", "[]", '""']))


@FAMILY.rejects(Rule.ENTRY, official_accepts=True, note="serde reads a struct from a list of its fields in order")
def value_as_list(source: Source) -> Case:
    """A tensor's entry is the list of its three fields without their keys."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    values = ",".join(value for _, value in base.parts.members[index].fields())
    return base.broken(base.parts.with_member(index, replace(base.parts.members[index], value=f"[{values}]")))


@FAMILY.rejects(Rule.ENTRY)
def value_nested(source: Source) -> Case:
    """An entry is wrapped once more: in an object under a module's name, or in a list."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    member = base.parts.members[index]
    text = base.parts.style.object(member.fields())
    wrapped = source.pick([f'{{"weight":{text}}}', f"[{text}]", f'{{"tensor":{text},"trainable":true}}'])
    return base.broken(base.parts.with_member(index, replace(member, value=wrapped)))


@FAMILY.leaves_open(Rule.SILENT, official_accepts=True)
def unknown_field(source: Source) -> Case:
    """An entry carries a fourth field that the format does not know."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    member = base.parts.members[index]
    extra = (
        json_string(source.pick(["strides", "layout", "requires_grad", "name"])),
        source.pick(["[1]", "true", '"x"', "null", '{"dtype":"I8"}']),
    )
    fields = source.pick([(*member.fields(), extra), (extra, *member.fields())])
    return base.broken(base.parts.with_member(index, replace(member, value=fields)), (base.contents,))


# --- dtype names --------------------------------------------------------------------------------------


@FAMILY.rejects(Rule.DTYPE, row="F-PARSE-040")
def dtype_unknown(source: Source) -> Case:
    """The dtype looks like one of the format's and is not."""
    names = ["F128", "F80", "I4", "U4", "I128", "TF32", "C128", "F8", "F6", "Q8_0", "F8_E3M4", "E8M0"]
    return _with_entry(source, plain(source), "dtype", json_string(source.pick(names)))


@FAMILY.rejects(Rule.DTYPE, row="F-PARSE-040")
def dtype_other_case(source: Source) -> Case:
    """The dtype is right but for upper and lower case."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    name = base.layout.tensors[index].dtype
    spelled = source.pick([name.lower(), name.title(), name[0] + name[1:].lower() + " "])
    if spelled in DTYPE_BITS:
        spelled = name.lower()
    member = base.parts.members[index].with_field("dtype", json_string(spelled))
    return base.broken(base.parts.with_member(index, member))


@FAMILY.rejects(Rule.DTYPE, row="F-PARSE-040")
def dtype_of_library(source: Source) -> Case:
    """The dtype is another library's name for the right type."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    name = base.layout.tensors[index].dtype
    spellings = {
        "F32": ["float32", "torch.float32", "<f4", "float", "FP32", "f32"],
        "F16": ["float16", "torch.float16", "<f2", "half", "FP16", "f16"],
        "BF16": ["bfloat16", "torch.bfloat16", "bf16", "BFLOAT16"],
    }
    text = json_string(source.pick(spellings[name]))
    return base.broken(base.parts.with_member(index, base.parts.members[index].with_field("dtype", text)))


@FAMILY.rejects(Rule.DTYPE, row="F-PARSE-040")
def dtype_affixed(source: Source) -> Case:
    """The dtype is the right name with something before or after it, or only its beginning."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    name = base.layout.tensors[index].dtype
    text = source.pick(
        [name[:-1], name[0], "", name + " ", " " + name, name + "\0", name + "\0x", name + "4", name + "_"]
    )
    member = base.parts.members[index].with_field("dtype", json_string(text))
    return base.broken(base.parts.with_member(index, member))


# --- names that stand twice ---------------------------------------------------------------------------


@FAMILY.leaves_open(Rule.DUPLICATES, official_accepts=True, note="the last entry of a name wins")
def name_twice(source: Source) -> Case:
    """A name stands twice with the same entry."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    member = base.parts.members[index]
    return base.broken(base.parts.with_member(index, member, member), (base.contents,))


@FAMILY.leaves_open(Rule.DUPLICATES, official_accepts=True, note="the last entry of a name wins")
def name_twice_retyped(source: Source) -> Case:
    """A name stands twice for the same bytes, the second time with another dtype or shape."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    member = base.parts.members[index]
    tensor = base.layout.tensors[index]
    fourbyte = {"F32": ("I32", "U32"), "F16": ("I16", "U16"), "BF16": ("I16", "F16")}
    if source.integer(0, 1):
        dtype = source.pick(fourbyte[tensor.dtype])
        twin, shape = member.with_field("dtype", json_string(dtype)), tensor.shape
    else:
        dtype, shape = tensor.dtype, (1, *tensor.shape)
        twin = member.with_field("shape", "[1," + ",".join(map(str, tensor.shape)) + "]")
    old = base.contents.tensors[tensor.name]
    new = TensorContents(dtype, shape, old.begin, old.payload)
    other = Contents({**base.contents.tensors, tensor.name: new})
    return base.broken(base.parts.with_member(index, member, twin), (base.contents, other))


@FAMILY.leaves_open(Rule.DUPLICATES, official_accepts=True, note="the last entry of a name wins")
def name_twice_escaped(source: Source) -> Case:
    """A name stands twice, once of them spelled with escapes."""
    base = plain(source)
    index = source.pick(base.parts.tensors())
    member = base.parts.members[index]
    twin = replace(member, key=f'"{escaped(base.layout.tensors[index].name)}"')
    return base.broken(base.parts.with_member(index, member, twin), (base.contents,))


@FAMILY.rejects(Rule.DUPLICATES)
def name_twice_elsewhere(source: Source) -> Case:
    """Two tensors with bytes of their own bear the same name, so that one of them is lost."""
    base = plain(source, least=2)
    first, second = base.parts.members[0], base.parts.members[1]
    return base.broken(base.parts.with_member(1, replace(second, key=first.key)))
