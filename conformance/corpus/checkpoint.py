"""A checkpoint as a directory in the Hugging Face layout: which files belong to it, and their hash."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_JSON_BYTES = 64 * 1024 * 1024
_SIDE_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "model.safetensors.index.json",
)


class CheckpointInvalid(Exception):
    """A directory or file that is no usable checkpoint; carries the path and the reason."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


@dataclass(frozen=True)
class Fingerprint:
    """The sha256 over a checkpoint's file names and file hashes, and the bytes of its weight files."""

    sha256: str
    weight_bytes: int


def weight_files(directory: Path) -> list[Path]:
    """All SafeTensors files that the checkpoint consists of, sorted by name.

    An index file decides which shards belong to it; without one every `*.safetensors` counts.

    Raises:
        CheckpointInvalid: There are none, or the index names a file that is missing or elsewhere.
    """
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        found = sorted(directory.glob("*.safetensors"))
        if not found:
            raise CheckpointInvalid(directory, "no .safetensors file in this directory")
        return found
    names = sorted(set(_weight_map(index).values()))
    for name in names:
        if Path(name).name != name or not (directory / name).is_file():
            raise CheckpointInvalid(index, f"names the shard {name!r}, which is not in the directory")
    return [directory / name for name in names]


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index).get("weight_map")
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise CheckpointInvalid(index, "has no weight_map from tensor names to file names")
    return content


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of at most 64 MiB.

    Raises:
        CheckpointInvalid: The file is missing, too large, no JSON, or no object.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            raise CheckpointInvalid(path, f"larger than {MAX_JSON_BYTES} bytes")
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointInvalid(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise CheckpointInvalid(path, f"not JSON: {error}") from error
    if not isinstance(content, dict):
        raise CheckpointInvalid(path, "not a JSON object")
    return content


def fingerprint(directory: Path) -> Fingerprint:
    """Hash a checkpoint: weights, configuration, tokenizer and template, whatever the directory's name.

    Raises:
        CheckpointInvalid: The directory holds no weights or no config.json.
    """
    weights = weight_files(directory)
    if not (directory / "config.json").is_file():
        raise CheckpointInvalid(directory, "no config.json in this directory")
    digest = hashlib.sha256()
    for path in sorted({*weights, *side_files(directory)}):
        digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return Fingerprint(digest.hexdigest(), sum(path.stat().st_size for path in weights))


def side_files(directory: Path) -> list[Path]:
    """Configuration, tokenizer, template and index, as far as they are there."""
    return [directory / name for name in _SIDE_FILES if (directory / name).is_file()]


def file_sha256(path: Path) -> str:
    """The sha256 of a file, remembered while its size and modification time stay the same."""
    resolved = path.resolve()
    status = resolved.stat()
    return _sha256_of_state(resolved, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=1024)
def _sha256_of_state(path: Path, _size: int, _mtime_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
