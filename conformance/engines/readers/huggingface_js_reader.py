"""huggingface.js: the header parser of `@huggingface/hub`, in node. It reads headers alone, and hands out no tensor.

The bytes of a tensor are those that its offsets name, as a caller of this library would read them.
"""

from __future__ import annotations

import json
import os
import struct
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from conformance.engines.readers.open_file import OpenFile
from conformance.npm import npm_package
from conformance.protocol.messages import TensorEntry

PACKAGE, LANGUAGE = "@huggingface/hub", "javascript"
_SCRIPT = Path(__file__).with_name("huggingface_js.js")
_OWN_ERROR = "SafetensorParseError"
_ERRNO: dict[str, type[OSError]] = {"ENOENT": FileNotFoundError, "EACCES": PermissionError}


class Refused(Exception):
    """The library's own error about a file."""


class Accident(Exception):
    """Another error out of the library, as JavaScript names it."""


def version() -> str:
    """The installed package's."""
    package = json.loads((npm_package(PACKAGE) / "package.json").read_text(encoding="utf-8"))
    return str(package["version"])


def open_file(path: str) -> OpenFile:
    """Parse the header with `parseSafetensorsMetadata`.

    Raises:
        Refused: the library calls the file malformed.
        Accident: the library stumbles.
    """
    header = _header(path)
    metadata = header.pop("__metadata__", None)
    entries = [TensorEntry(name, str(one.get("dtype")), one["shape"]) for name, one in header.items()]

    def read(name: str) -> bytes:
        begin, end = header[name]["data_offsets"]
        with Path(path).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            file.seek(8 + length + begin)
            return file.read(end - begin)

    return OpenFile(entries, read, _strings(metadata))


def refusals() -> tuple[type[Exception], ...]:
    """What stands for its own error."""
    return (Refused,)


def _header(path: str) -> dict[str, Any]:
    told = _asked(path)
    if "header" in told:
        header: dict[str, Any] = told["header"]
        return header
    if told["thrown"] == _OWN_ERROR:
        raise Refused(told["message"])
    raise _ERRNO.get(told["code"], Accident)(f"{told['thrown']}: {told['message']}")


def _asked(path: str) -> dict[str, Any]:
    node = _node()
    assert node.stdin is not None
    assert node.stdout is not None
    try:
        node.stdin.write(json.dumps(path).encode() + b"\n")
        node.stdin.flush()
        line = node.stdout.readline()
    except BrokenPipeError:
        line = b""
    if not line:
        _node.cache_clear()
        raise Accident(f"node ended with {node.wait()}")
    told: dict[str, Any] = json.loads(line)
    return told


@cache
def _node() -> subprocess.Popen[bytes]:
    """One process for all files; it ends with its standard input."""
    root = npm_package(PACKAGE).parent.parent
    return subprocess.Popen(
        ["node", str(_SCRIPT)],  # noqa: S607  the node on PATH is the one that the manifest asks for
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"NODE_PATH": str(root)},
    )


def _strings(metadata: object) -> dict[str, str]:
    """It hands out whatever JSON is there; the protocol has strings."""
    if metadata is None:
        return {}
    told = metadata if isinstance(metadata, dict) else {"": metadata}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
