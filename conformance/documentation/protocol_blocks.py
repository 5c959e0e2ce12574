"""The protocol's reference, from its own message types."""

from __future__ import annotations

import msgspec

from conformance.documentation.markdown import code, table
from conformance.documentation.structures import fields_table, summary
from conformance.protocol.messages import METHODS, Capability, Empty, ErrorKind

CAPABILITY_MEANING: dict[Capability, str] = {
    Capability.SOURCE: "Its sources are at hand: the manifest has a `[source]` table.",
    Capability.BUILD: "It can be built: the manifest has a `[build]` table.",
    Capability.CLI: "It has a command line: the manifest has a `[cli]` table.",
    Capability.FILE: "It opens SafeTensors files, lists what is inside, and reads single tensors.",
    Capability.DEVICE: "It lists and opens devices, allocates, queues work and waits for it.",
    Capability.STORAGE: "It keeps tensors on a device, converts them, and gives them back bit for bit.",
    Capability.MODEL: "It loads a checkpoint and computes logits.",
    Capability.GENERATE: "It tokenizes, applies chat templates and generates.",
    Capability.TRACE: "Reserved: no method of this version needs it.",
}
ERROR_MEANING: dict[ErrorKind, str] = {
    ErrorKind.FILE_NOT_FOUND: "There is no such file.",
    ErrorKind.PERMISSION_DENIED: "The file may not be read.",
    ErrorKind.INVALID_FILE: "The file breaks its format's rules, or ends early.",
    ErrorKind.UNSUPPORTED_DTYPE: "The dtype is known or unknown, and not one that the engine computes with.",
    ErrorKind.DEVICE_NOT_FOUND: "No device has this ordinal.",
    ErrorKind.OUT_OF_MEMORY: "The device or the host has no room for this.",
    ErrorKind.INVALID_MODEL: "The checkpoint is incomplete, contradictory, or of an unknown architecture.",
    ErrorKind.INVALID_ARGUMENT: "The request makes no sense.",
    ErrorKind.CLOSED_HANDLE: "The handle was closed or never given.",
    ErrorKind.NOT_SUPPORTED: "The engine does not do this.",
    ErrorKind.DEVICE_FAILED: "The device or its driver failed; the process should be replaced.",
    ErrorKind.INTERNAL: "Anything that the adapter does not know.",
}


def capabilities() -> str:
    """Each capability, what it means, and how many methods it opens."""
    rows = []
    for capability, meaning in CAPABILITY_MEANING.items():
        methods = sum(row.capability is capability for row in METHODS.values())
        rows.append([code(capability.value), meaning, str(methods) if methods else "none: judged from the manifest"])
    return table(["capability", "offered by an engine when", "methods"], rows)


def methods() -> str:
    """Each method with its parameter and result types, by capability."""
    rows = [
        [code(name), _link(row.params), _link(row.result), code(row.capability or "") or "always"]
        for name, row in METHODS.items()
    ]
    return table(["method", "takes", "answers", "capability"], rows)


def messages() -> str:
    """Each message type that a method takes or answers, and what is inside those."""
    return "\n\n".join(f"### {kind.__name__}\n\n{summary(kind)}\n\n{fields_table(kind)}" for kind in message_types())


def errors() -> str:
    """Each kind of error."""
    return table(["kind", "when"], ([code(kind.value), meaning] for kind, meaning in ERROR_MEANING.items()))


def message_types() -> list[type[msgspec.Struct]]:
    """All types on the wire except the empty one, by name."""
    found: dict[str, type[msgspec.Struct]] = {}
    for row in METHODS.values():
        for kind in (row.params, row.result):
            _gather(kind, found)
    return [found[name] for name in sorted(found) if found[name] is not Empty]


def _gather(kind: type[msgspec.Struct], found: dict[str, type[msgspec.Struct]]) -> None:
    if kind.__name__ in found:
        return
    found[kind.__name__] = kind
    described = msgspec.inspect.type_info(kind)
    assert isinstance(described, msgspec.inspect.StructType)
    for field in described.fields:
        for inner in _structs(field.type):
            _gather(inner, found)


def _structs(described: msgspec.inspect.Type) -> list[type[msgspec.Struct]]:
    match described:
        case msgspec.inspect.StructType(cls=kind):
            return [kind]
        case msgspec.inspect.ListType(item_type=inner) | msgspec.inspect.DictType(value_type=inner):
            return _structs(inner)
        case msgspec.inspect.UnionType(types=parts):
            return [kind for part in parts for kind in _structs(part)]
    return []


def _link(kind: type[msgspec.Struct]) -> str:
    return "nothing" if kind is Empty else f"[{kind.__name__}](#{kind.__name__.lower()})"
