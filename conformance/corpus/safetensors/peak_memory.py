"""How far a process's resident memory rose during a call: the kernel's own high-water mark."""

from __future__ import annotations

import os
from pathlib import Path

_SLACK_KIB = 16 * 1024
_STATUS_BYTES = 8192


class PeakMemory:
    """Watches one process: `begin` takes its resident memory, `growth` says how far the peak has risen above it.

    The kernel keeps one peak for the whole life of a process. `begin` sets it back when an earlier peak would hide
    a new one; where that is not allowed, growth below the earlier peak is not seen. Where the system has no /proc,
    growth is 0.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._resident = self._peak = 0
        try:
            self._status = os.open(f"/proc/{pid}/status", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._status = -1

    def begin(self) -> None:
        """Take the memory that growth is counted from."""
        self._resident, self._peak = self._read()
        if self._peak - self._resident > _SLACK_KIB:
            self._set_back()

    def growth(self) -> int:
        """Bytes by which the peak since `begin` lies above the memory of then."""
        _, peak = self._read()
        return max(0, peak - self._resident) * 1024 if peak > self._peak else 0

    def close(self) -> None:
        """Let go of the process."""
        if self._status >= 0:
            os.close(self._status)
            self._status = -1

    def _set_back(self) -> None:
        try:
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        except OSError:
            return
        self._resident, self._peak = self._read()

    def _read(self) -> tuple[int, int]:
        """Resident memory and its peak in KiB."""
        try:
            text = os.pread(self._status, _STATUS_BYTES, 0) if self._status >= 0 else b""
        except OSError:
            return 0, 0
        return _field(text, b"VmRSS:"), _field(text, b"VmHWM:")


def _field(text: bytes, name: bytes) -> int:
    at = text.find(name)
    return int(text[at + len(name) :].split(None, 1)[0]) if at >= 0 else 0
