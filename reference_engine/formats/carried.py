"""The small files of a checkpoint that one file carries beside its tensors, as GGUF and APR do."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from reference_engine.errors import FileNotFound
from reference_engine.files import SideFiles


class CarriedFiles(SideFiles):
    """The files under their Hugging Face names.

    Args:
        place: The file that carries them, named in errors.
        carried: Their bytes by name.
    """

    def __init__(self, place: Path, carried: Mapping[str, bytes]) -> None:
        super().__init__(place)
        self._carried = carried

    def where(self, name: str) -> str:
        """What errors about the file call it."""
        return f"{self._place} ({name})"

    def __contains__(self, name: str) -> bool:
        return name in self._carried

    def _open(self, name: str) -> BinaryIO:
        if name not in self._carried:
            raise FileNotFound(self.where(name))
        return io.BytesIO(self._carried[name])
