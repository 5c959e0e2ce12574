"""The places of this host at which a cell can be tried at one time: its GPUs, or pretended ones, or its CPU."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from conformance.matrix.cells import HERE, Cell
from conformance.probes.nvml import VISIBLE, gpus


class NoSuchDevice(Exception):
    """A cell asks for a GPU that this host does not have."""

    def __init__(self, cell: Cell, names: Sequence[str]) -> None:
        self.cell = cell
        super().__init__(f"cell {cell.name}: no {cell.device!r} on this host, which has {', '.join(names) or 'no GPU'}")


class Place(msgspec.Struct, frozen=True):
    """Where one cell at a time is tried; `env` pins its processes to the place."""

    name: str
    env: dict[str, str]

    def serves(self, cell: Cell) -> bool:
        """True where the cell may be tried here."""
        return cell.device == HERE or cell.device.lower() in self.name.lower()


def places_of_host(cpu_places: int, *, rehearse: bool = False) -> list[Place]:
    """One place a GPU, each pinned by its UUID; on a host without one, or to `rehearse`, `cpu_places` of the CPU.

    Raises:
        DeviceUnusable: a GPU is visible and does not answer.
    """
    devices = [] if rehearse else gpus()
    if devices:
        return [Place(f"{device.name} {device.index}", {VISIBLE: device.uuid}) for device in devices]
    return [Place(f"cpu {number}", {}) for number in range(cpu_places)]


def check_served(cells: Sequence[Cell], places: Sequence[Place]) -> None:
    """Refuse a matrix with a cell that would wait for ever.

    Raises:
        NoSuchDevice: no place serves it.
    """
    for cell in cells:
        if not any(place.serves(cell) for place in places):
            raise NoSuchDevice(cell, [place.name for place in places])
