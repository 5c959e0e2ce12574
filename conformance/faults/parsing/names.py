"""What tensors are called, and what a file says of itself."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import Any

from conformance.faults.parsing.changing import FILES, checked_entries, header_bytes
from conformance.faults.planting import Plant, fault
from reference_engine.header import Header


def _renamed(plant: Plant, change: Callable[[str], str]) -> None:
    def renamed(tensors: dict[str, Any]) -> dict[str, Any]:
        return {change(name): entry._replace(name=change(name)) for name, entry in tensors.items()}

    checked_entries(plant, renamed)


@fault(expects={"F-PARSE-038": "files"}, blast=FILES)
def names_normalised(plant: Plant) -> None:
    """Names are brought into Unicode's composed form."""
    _renamed(plant, lambda name: unicodedata.normalize("NFC", name))


@fault(expects={"F-PARSE-038": "files"}, blast=FILES)
def names_folded(plant: Plant) -> None:
    """Names lose their capitals."""
    _renamed(plant, str.lower)


@fault(expects={"F-PARSE-038": "files"}, blast=FILES)
def names_cut_at_63(plant: Plant) -> None:
    """Names are kept in 64 bytes with a zero at the end, as GGUF once did."""
    _renamed(plant, lambda name: name[:63])


@fault(expects={"F-PARSE-038": "files"}, blast=FILES)
def names_stripped(plant: Plant) -> None:
    """White space around a name is dropped, and an empty name becomes `unnamed`."""
    _renamed(plant, lambda name: name.strip() or "unnamed")


@fault(expects={"F-PARSE-038": "files"}, blast=FILES)
def escapes_in_names_kept(plant: Plant) -> None:
    """JSON escapes in names are left as they are written."""
    from reference_engine import header

    plant.replace(header._Walk, "plain", lambda _original, _walk, text: text)


@fault(expects={"F-PARSE-045": "files"}, blast=FILES)
def metadata_dropped(plant: Plant) -> None:
    """`__metadata__` is read over and forgotten."""
    from reference_engine import files

    def without(original: Any, path: str, raw: bytes, size: int) -> Any:
        parsed = original(path, raw, size)
        return Header(parsed.tensors, {}, parsed.data_start)

    plant.replace(files, "parse_header", without)


@fault(expects={"F-PARSE-045": "clear"}, blast=FILES)
def metadata_values_made_texts(plant: Plant) -> None:
    """A metadata value that is no text becomes one."""
    import json

    def texts(raw: bytes) -> bytes:
        try:
            value = json.loads(raw)
            pairs = value["__metadata__"].items()
        except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
            return raw
        if all(isinstance(each, str) for _, each in pairs):
            return raw
        value["__metadata__"] = {key: each if isinstance(each, str) else json.dumps(each) for key, each in pairs}
        return json.dumps(value).encode()

    header_bytes(plant, texts)


@fault(expects={"F-PARSE-045": "files"}, blast=FILES)
def metadata_keys_folded(plant: Plant) -> None:
    """Keys of the metadata lose capitals and blanks."""
    from reference_engine import files

    def folded(original: Any, path: str, raw: bytes, size: int) -> Any:
        parsed = original(path, raw, size)
        metadata = {key.strip().lower(): value for key, value in parsed.metadata.items()}
        return Header(parsed.tensors, metadata, parsed.data_start)

    plant.replace(files, "parse_header", folded)
