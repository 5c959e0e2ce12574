"""What can be wrong with the request for a matrix."""

from __future__ import annotations

from pathlib import Path


class BadShard(Exception):
    """A shard that is not I/N with 1 <= I <= N."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"shard {text!r}: I/N with 1 <= I <= N, as 2/3")


class BadDevices(Exception):
    """Not numbers of GPUs."""

    def __init__(self, text: str) -> None:
        self.text = text
        super().__init__(f"devices {text!r}: numbers with commas between, or none")


class BrokenLedger(Exception):
    """A file among the trials that is none."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"{path}: {cause}")
