"""A checkpoint on disk: one file of tensors in any format, or shards named by an index, and its small files."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated

from msgspec import Meta, Struct

from reference_engine.errors import InvalidModel, MissingTensor, quote
from reference_engine.files import SafeTensorsFile, SideFiles, TensorFile, reading, typed
from reference_engine.formats.opening import open_tensors
from reference_engine.header import TensorEntry

SINGLE_FILE = "model.safetensors"
INDEX_SUFFIX = ".safetensors.index.json"


class _Index(Struct):
    weight_map: Annotated[dict[str, str], Meta(min_length=1)]


@dataclass(frozen=True, slots=True)
class Located:
    """A tensor's entry and the open file that holds its bytes."""

    file: TensorFile
    entry: TensorEntry


class Checkpoint(AbstractContextManager["Checkpoint"]):
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
        weight_map = typed(str(self.path), self.side_files.read_json(self.path.name), _Index).weight_map
        shards = {name: self._open_shard(name) for name in sorted(set(weight_map.values()))}
        for tensor, shard in weight_map.items():
            entry = shards[shard].tensors.get(tensor)
            if entry is None:
                raise MissingTensor(str(self.directory / shard), tensor)
            self.tensors[tensor] = Located(shards[shard], entry)

    def _open_shard(self, name: str) -> TensorFile:
        """By its name alone it must stay inside: model caches keep shards as symbolic links to elsewhere."""
        parts = PurePosixPath(name).parts
        if not parts or "\0" in name or ".." in parts or name.startswith("/"):
            raise InvalidModel(str(self.path), f"shard {quote(name)} is not a file name inside the directory")
        return self._files.enter_context(SafeTensorsFile(self.directory / name))

    def close(self) -> None:
        """Close every file."""
        self._files.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def weights_path(path: str | Path) -> Path:
    """The file that a checkpoint's path stands for: itself, or in a directory the single file, else the index."""
    path = Path(path)
    with reading(str(path)):
        if not path.is_dir():
            return path
    single, index = path / SINGLE_FILE, path / f"model{INDEX_SUFFIX}"
    return index if index.exists() and not single.exists() else single
