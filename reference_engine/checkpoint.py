"""A checkpoint on disk: one file of tensors in any format, or shards named by an index, and its small files."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Self

from reference_engine.errors import FileNotFound, InvalidModel, MissingTensor, PermissionDenied, quote
from reference_engine.files import SafeTensorsFile, SideFiles, TensorFile, read_json
from reference_engine.formats.opening import open_tensors

if TYPE_CHECKING:
    from reference_engine.header import TensorEntry

SINGLE_FILE = "model.safetensors"
INDEX_SUFFIX = ".safetensors.index.json"


@dataclass(frozen=True, slots=True)
class Located:
    """A tensor's entry and the open file that holds its bytes."""

    file: TensorFile
    entry: TensorEntry


class Checkpoint:
    """All tensors of a checkpoint by name, over its open files. Closes as a context manager.

    Args:
        path: A directory, a `.safetensors.index.json`, or a file whose content is SafeTensors, GGUF or APR.

    Raises:
        FileNotFound: Nothing loadable at `path`, or a shard that the index names is missing.
        InvalidFile: A file breaks the format.
        InvalidModel: The index is malformed or names a file outside its directory.
        MissingTensor: A tensor is not in the shard where the index puts it.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = weights_path(path)
        self.directory = self.path.parent
        self.side_files = SideFiles(self.directory)
        self.tensors: dict[str, Located] = {}
        self._files = ExitStack()
        try:
            self._open_files()
        except BaseException:
            self.close()
            raise

    def _open_files(self) -> None:
        if not self.path.name.endswith(INDEX_SUFFIX):
            file = self._files.enter_context(open_tensors(self.path))
            self.side_files = file.side_files
            self.tensors = {name: Located(file, entry) for name, entry in file.tensors.items()}
            return
        weight_map = _weight_map(self.path)
        shards = {
            name: self._files.enter_context(SafeTensorsFile(self.directory / name))
            for name in sorted(set(weight_map.values()))
        }
        for tensor, shard in weight_map.items():
            entry = shards[shard].tensors.get(tensor)
            if entry is None:
                raise MissingTensor(str(self.directory / shard), tensor)
            self.tensors[tensor] = Located(shards[shard], entry)

    def close(self) -> None:
        """Close every file."""
        self._files.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def weights_path(path: str | Path) -> Path:
    """The file that a checkpoint's path stands for: itself, or in a directory the single file, else the index."""
    path = Path(path)
    try:
        is_directory = path.is_dir()
    except PermissionError:
        raise PermissionDenied(str(path)) from None
    except (OSError, ValueError):
        raise FileNotFound(str(path)) from None
    if not is_directory:
        return path
    single = path / SINGLE_FILE
    index = path / f"model{INDEX_SUFFIX}"
    return index if index.exists() and not single.exists() else single


def _weight_map(path: Path) -> dict[str, str]:
    weight_map: Any = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InvalidModel(str(path), "weight_map must name at least one tensor and its shard")
    for tensor, shard in weight_map.items():
        if not isinstance(shard, str) or not _stays_inside(shard):
            cause = f"shard {quote(str(shard))} of tensor {quote(tensor)} is not a file name inside the directory"
            raise InvalidModel(str(path), cause)
    return weight_map


def _stays_inside(name: str) -> bool:
    """Judge by the name alone: model caches keep shards as symbolic links to elsewhere."""
    parts = PurePosixPath(name).parts
    return bool(parts) and "\0" not in name and ".." not in parts and not name.startswith("/")
