"""A checkpoint in another format, every value kept: what the target cannot say is refused."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from reference_engine.checkpoint import Checkpoint
from reference_engine.errors import InvalidArgument, WriteFailed
from reference_engine.formats.apr_writer import write_apr
from reference_engine.formats.described import Described, describe
from reference_engine.formats.gguf_writer import write_gguf

if TYPE_CHECKING:
    from collections.abc import Callable

WRITERS: dict[str, Callable[[Path, Checkpoint, Described], None]] = {".apr": write_apr, ".gguf": write_gguf}


def convert(source: str | Path, target: str | Path) -> None:
    """Write a checkpoint as one file of the format that the target's suffix names, `.apr` or `.gguf`.

    The file appears whole or not at all. A GGUF keeps one-dimensional tensors in F32, as its readers demand.

    Raises:
        InvalidArgument: Another suffix.
        InvalidModel: The checkpoint says something that the format has no words for.
        WriteFailed: The target cannot be written.
        InvalidFile, FileNotFound, UnsupportedDtype: The source cannot be read.
    """
    target = Path(target)
    writer = WRITERS.get(target.suffix)
    if writer is None:
        raise InvalidArgument("target", f"its suffix {target.suffix!r} is none of {', '.join(WRITERS)}")
    with Checkpoint(source) as checkpoint:
        described = describe(checkpoint)
        try:
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
                made = Path(scratch) / target.name
                writer(made, checkpoint, described)
                made.replace(target)
        except OSError as error:
            raise WriteFailed(str(target), error.strerror or str(error)) from None
