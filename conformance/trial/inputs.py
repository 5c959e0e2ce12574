"""What a trial's result depends on, as one hash: two trials with the same inputs try the same thing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from conformance.manifest import LoadedManifest
from conformance.record import Header
from conformance.revision import sources_sha256

_MACHINE = ("gpus", "python", "libraries")
_OF_A_DEVICE = ("name", "driver")


class Inputs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that could change a verdict and is known before the first row; times and places are not among them."""

    engine: str
    engine_files: str
    harness: str
    model: str
    goldens: str
    catalogue: str
    thresholds: str
    selected: list[str]
    seed: int
    shuffle: bool
    profile: str
    machine: dict[str, Any]

    @property
    def sha256(self) -> str:
        """One hash over all of them."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


def inputs_of(header: Header, manifest: LoadedManifest, goldens: Path | None, *, shuffle: bool = False) -> Inputs:
    """The inputs of the trial that this header opens; `header.selected` must be the whole trial's rows.

    Raises:
        OSError: a file that the engine consists of cannot be read.
    """
    return Inputs(
        engine=manifest.sha256,
        engine_files=_hashed(_engine_files(manifest)),
        harness=sources_sha256(Path(__file__).resolve().parents[2]),
        model=header.model.sha256,
        goldens=_hashed(sorted(goldens.glob("goldens.*")) if goldens else []),
        catalogue=header.catalogue_sha256,
        thresholds=header.thresholds_sha256,
        selected=list(header.selected),
        seed=header.seed,
        shuffle=shuffle,
        profile=header.profile,
        machine=comparable(header.environment),
    )


def comparable(environment: dict[str, Any]) -> dict[str, Any]:
    """The part of a machine's fingerprint that parts of one trial must share: kind of GPU, driver, libraries."""
    shared = {key: environment.get(key) for key in _MACHINE}
    devices: list[dict[str, Any]] = environment.get("gpus") or []
    shared["gpus"] = sorted({tuple(str(device.get(field)) for field in _OF_A_DEVICE) for device in devices})
    return shared


def _engine_files(manifest: LoadedManifest) -> list[Path]:
    """The files that the engine's commands name, and the sources that its manifest declares."""
    tables = manifest.manifest
    commands = [table.command for table in (tables.driver, tables.cli) if table is not None]
    words = [manifest.path.parent / word for command in commands for word in manifest.filled(command)]
    found = {path.resolve() for path in words if path.is_file()}
    if tables.source is not None:
        root = manifest.path.parent / tables.source.root
        found |= {path.resolve() for pattern in tables.source.include for path in root.glob(pattern) if path.is_file()}
    return sorted(found)


def _hashed(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name}\0{content}\0".encode())
    return digest.hexdigest()
