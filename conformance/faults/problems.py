"""What can be wrong with the request for a matrix."""

from __future__ import annotations

from pathlib import Path

from conformance.reported import Reported


class BadDevices(Reported):
    """Not numbers of GPUs."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"devices {text!r}: numbers with commas between, or none")


class BrokenLedger(Reported):
    """A file among the trials that is none."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"{path}: {cause}")
