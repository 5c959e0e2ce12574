"""Room on the run directory's file system: an engine that could not write into ours has not failed by itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

from conformance.reported import Reported
from conformance.verdicts import ExitCode

LEAST_BYTES = 32 << 20
"""More than any one message's tensors on the shipped models."""


class DiskFull(Reported):
    """The run directory cannot take what a row writes; nothing that failed meanwhile says anything of the engine."""

    exit_code: ClassVar[ExitCode] = ExitCode.HARNESS

    def __init__(self, directory: Path, cause: str) -> None:
        self.directory, self.cause = directory, cause
        super().__init__(f"{directory}: no room for {LEAST_BYTES >> 20} MiB: {cause}")


def room_is_gone(directory: Path) -> DiskFull | None:
    """The error if a file of `LEAST_BYTES` has no place there: by quota, limit or a full disk. It is not kept."""
    probe = directory / f".room-{os.getpid()}"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            os.posix_fallocate(descriptor, 0, LEAST_BYTES)
        finally:
            os.close(descriptor)
            probe.unlink()
    except OSError as error:
        return DiskFull(directory, error.strerror or str(error))
    return None
