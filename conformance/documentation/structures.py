"""Message and record types as tables: every field, its type as JSON has it, and its default."""

from __future__ import annotations

import types
import typing
from enum import StrEnum
from typing import Any

import msgspec

from conformance.documentation.markdown import code, table

_PLAIN = {
    int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null", Any: "any JSON",
    msgspec.Raw: "any JSON",
}  # fmt: skip


def fields_table(kind: type[msgspec.Struct]) -> str:
    """The fields of a type; `no fields` where there are none."""
    hints = typing.get_type_hints(kind)
    rows = [
        [code(field.encode_name), spoken(hints[field.name]), default_of(field)]
        for field in msgspec.structs.fields(kind)
    ]
    return table(["field", "type", "default"], rows) if rows else "No fields."


def default_of(field: msgspec.structs.FieldInfo) -> str:
    """The default as JSON in code, or `required`."""
    if field.default is not msgspec.NODEFAULT:
        value = field.default
    elif field.default_factory is not msgspec.NODEFAULT:
        value = field.default_factory()
    else:
        return "required"
    return "absent" if value is msgspec.UNSET else code(msgspec.json.encode(value).decode())


def spoken(hint: Any) -> str:
    """A type in words: `list of string`, `TensorData`, `integer or null`."""
    if hint in _PLAIN:
        return _PLAIN[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join(spoken(part) for part in arguments if part is not msgspec.UnsetType)
    if origin in {list, tuple}:
        return f"list of {spoken(arguments[0])}"
    if origin is dict:
        return f"object of {spoken(arguments[1])}"
    if origin is typing.Literal:
        return " or ".join(code(str(value)) for value in arguments)
    return f"{hint.__name__} (string)" if issubclass(hint, StrEnum) else str(hint.__name__)


def summary(kind: type[Any]) -> str:
    """The docstring of a type as one paragraph a paragraph."""
    paragraphs = (kind.__doc__ or "").strip().split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
