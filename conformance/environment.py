"""The fingerprint of the machine a trial ran on: everything a reviewer needs to judge whether two are comparable."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import psutil

from conformance.probes.nvml import Gpu

_LIBRARIES = ("torch", "triton", "safetensors", "tokenizers", "numpy", "hypothesis", "pytest", "msgspec", "gguf")


def fingerprint(devices: Sequence[Gpu]) -> dict[str, Any]:
    """Hardware, system and library versions as plain JSON; memory in bytes."""
    return {
        "gpus": [_published(device) for device in devices],
        "cpu": {"model": cpu_model(), "cores": usable_cores()},
        "memory_bytes": psutil.virtual_memory().total,
        "load_average": list(os.getloadavg()),
        "system": platform.platform(),
        "python": sys.version.split()[0],
        "libraries": {name: found for name in _LIBRARIES if (found := library_version(name))},
    }


def _published(device: Gpu) -> dict[str, Any]:
    """A device as it may be shown to anyone: its serial identity only as a short hash."""
    fields: dict[str, Any] = msgspec.to_builtins(device)
    fields["uuid"] = hashlib.sha256(device.uuid.encode()).hexdigest()[:12]
    return fields


def library_version(name: str) -> str | None:
    """The installed version of a distribution, without importing it; None if it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def usable_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the kernel tells it."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(filter(None, named), platform.processor() or platform.machine() or "unknown")
