"""Cells on the machines of a Ray cluster: GPUs are Ray's resources, and a dead worker's cells are tried elsewhere.

Needs the extra `ray`, the project at the same place on every machine, and a directory that they share.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import msgspec

from conformance.matrix.cells import HERE, Cell
from conformance.matrix.devices import NoSuchDevice
from conformance.matrix.pool import Hear, events_of, trial_process
from conformance.matrix.trial import CellDone, Event, Request
from conformance.verdicts import ExitCode

MOST_ATTEMPTS = 3
_IN_FLIGHT = 256
_LOOK_EVERY_S = 0.5
_PATIENCE_S = 120.0
_ANSWERS_WITHIN_S = 10.0
_KIND = "accelerator_type:"
_SLIVER = 0.001
"""Ray marks a machine by a resource of its GPU's type; asking for any of it asks for such a machine."""


class RayMissing(Exception):
    """A cluster was asked for without the library that speaks to it."""

    def __init__(self) -> None:
        super().__init__("--ray needs Ray: pip install 'falsify-inference[ray]'")


class NoCluster(Exception):
    """No Ray cluster answers at the address."""

    def __init__(self, address: str, cause: str) -> None:
        self.address, self.cause = address, cause
        super().__init__(f"--ray {address}: {cause}")


class RayPool:
    """Runs cells on a cluster; the same face as the pool of one host."""

    def __init__(self, address: str, request: Callable[[Cell], Request], hear: Hear) -> None:
        self._address, self._request, self._hear = address, request, hear
        self._stopped = threading.Event()
        self._attempts: Counter[str] = Counter()
        self._running: dict[Any, Cell] = {}

    def run(self, cells: Sequence[Cell]) -> None:
        """Try all cells, each on a machine that has what it needs.

        Raises:
            RayMissing, NoCluster: there is none to run on.
            NoSuchDevice: no machine of the cluster has the cell's GPU.
        """
        ray = _connected(self._address)
        try:
            resources = ray.cluster_resources()
            needs = {cell.name: needs_of(cell, self._request(cell).workers, resources) for cell in cells}
            task = ray.remote(max_retries=0, num_returns="streaming")(tried_on_worker)
            self._drain(ray, deque(cells), lambda cell: task.options(**needs[cell.name]).remote(self._asked(cell)))
        finally:
            ray.shutdown()

    def stop(self) -> None:
        """Start nothing more, and ask what runs to end."""
        self._stopped.set()

    def _asked(self, cell: Cell) -> bytes:
        return msgspec.json.encode(msgspec.structs.replace(self._request(cell), patience_s=_PATIENCE_S))

    def _drain(self, ray: Any, waiting: deque[Cell], submit: Callable[[Cell], Any]) -> None:
        while (waiting or self._running) and not self._stopped.is_set():
            while waiting and len(self._running) < _IN_FLIGHT:
                cell = waiting.popleft()
                self._attempts[cell.name] += 1
                self._running[submit(cell)] = cell
            for stream in ray.wait(list(self._running), num_returns=1, timeout=_LOOK_EVERY_S)[0]:
                self._take(ray, stream, waiting)
        for stream in self._running:
            with suppress(ray.exceptions.RayError):
                ray.cancel(stream, force=False)

    def _take(self, ray: Any, stream: Any, waiting: deque[Cell]) -> None:
        """Hear what the cell's worker says next; where it died, let another try."""
        cell = self._running[stream]
        try:
            event: Event = msgspec.json.decode(ray.get(next(stream)), type=Event)
        except ray.exceptions.RayTaskError as error:
            event = CellDone(int(ExitCode.HARNESS), cause=f"its worker failed: {error.cause}")
        except (ray.exceptions.RayError, StopIteration) as error:
            if self._attempts[cell.name] < MOST_ATTEMPTS:
                del self._running[stream]
                waiting.append(cell)
                return
            event = CellDone(int(ExitCode.HARNESS), cause=f"{MOST_ATTEMPTS} workers died, last: {type(error).__name__}")
        self._hear(cell, event)
        if isinstance(event, CellDone):
            del self._running[stream]


def tried_on_worker(asked: bytes) -> Iterator[bytes]:
    """The task: try the cell in a process of its own, pinned to the worker's GPU, and pass on what it tells."""
    with trial_process({}) as process:
        for event in events_of(process, msgspec.json.decode(asked, type=Request)):
            yield msgspec.json.encode(event)


def needs_of(cell: Cell, workers: int, resources: Mapping[str, float]) -> dict[str, Any]:
    """What Ray must reserve for a cell: a GPU where the cluster has any, of the kind that the cell names.

    Raises:
        NoSuchDevice: no machine of the cluster has it.
    """
    kinds = [name for name in resources if name.startswith(_KIND)]
    needs: dict[str, Any] = {"num_cpus": workers, "num_gpus": 1 if resources.get("GPU") else 0}
    if cell.device == HERE:
        return needs
    fitting = [name for name in kinds if cell.device.lower() in name.removeprefix(_KIND).lower()]
    if len(fitting) != 1:
        raise NoSuchDevice(cell, [name.removeprefix(_KIND) for name in kinds])
    return needs | {"resources": {fitting[0]: _SLIVER}}


def _connected(address: str) -> Any:
    if find_spec("ray") is None:
        raise RayMissing
    import ray  # noqa: PLC0415  an extra, and a second

    host, colon, port = address.rpartition(":")
    try:
        if colon and port.isdecimal() and "//" not in address:  # Ray itself says so only after minutes
            socket.create_connection((host, int(port)), _ANSWERS_WITHIN_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError, ValueError) as error:
        raise NoCluster(address, str(error)) from error
    return ray
