"""How far a process's resident memory rose during a call: the kernel's own high-water mark."""

from __future__ import annotations

from pathlib import Path

_SLACK_KIB = 16 * 1024


class PeakMemory:
    """Takes a process's resident memory now; `growth` says how far the peak has risen above it since.

    The kernel keeps one peak for the whole life of a process. It is set back here when an earlier peak would
    hide a new one; where that is not allowed, growth below the earlier peak is not seen.
    """

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._before, self._peak = self._read()
        if self._peak - self._before > _SLACK_KIB:
            self._set_back(pid)

    def growth(self) -> int:
        """Bytes by which the peak since then lies above the memory of then; 0 where the system does not say."""
        _, peak = self._read()
        return max(0, peak - self._before) * 1024 if peak > self._peak else 0

    def _set_back(self, pid: int) -> None:
        try:
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        except OSError:
            return
        self._before, self._peak = self._read()

    def _read(self) -> tuple[int, int]:
        """Resident memory and its peak in KiB."""
        try:
            text = self._status.read_text()
        except OSError:
            return 0, 0
        return _field(text, "VmRSS:"), _field(text, "VmHWM:")


def _field(text: str, name: str) -> int:
    at = text.find(name)
    return int(text[at + len(name) :].split(None, 1)[0]) if at >= 0 else 0
