"""The reference engine with doses: a driver that really takes longer, or really keeps memory, by a stated amount.

`python -m conformance.calibration.dosing` reads its dose anew before each call, from the file that `FALSIFY_DOSE`
names, so that one process can show several. It is slowed where the work is done: the call's own work is timed, and
the processor is kept busy for a share of that time before the answer leaves. Where several shares are asked for, the
largest is spent, and beside the dose stands how long before the answer each of them had been reached: what happens
once in a process (the load, the first token) shows every dose so.
"""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from conformance.engines.reference import ReferenceEngine
from conformance.engines.reference_devices import OpenDevice
from conformance.protocol import messages as m

if TYPE_CHECKING:
    from reference_engine.device import Device

DOSE = "FALSIFY_DOSE"
Answer = TypeVar("Answer")


class Dose(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is wrong from the next call on.

    Attributes:
        slowdowns: Shares of a call's own time that it takes longer, ascending; 0 is none.
        leak: Bytes that each operation of a growth row keeps.
        accounted: Whether the engine's own account shows them.
    """

    slowdowns: tuple[float, ...] = (0.0,)
    leak: int = 0
    accounted: bool = False


class DoseFile:
    """The dose of one process, as the two sides pass it: the trial writes it, the engine says what it did."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._passed = path.with_suffix(".passed")

    def give(self, dose: Dose) -> None:
        """Let this be the dose of the next calls."""
        fresh = self.path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(dose))
        fresh.replace(self.path)

    def dose(self) -> Dose:
        """The dose that holds now."""
        return msgspec.json.decode(self.path.read_bytes(), type=Dose)

    def note(self, before_answer: list[float]) -> None:
        """Say how long before the answer each share had been reached, in seconds."""
        self._passed.write_bytes(msgspec.json.encode(before_answer))

    def before_answer(self) -> list[float]:
        """What the engine noted with its last call."""
        return msgspec.json.decode(self._passed.read_bytes(), type=list[float])


class DosedEngine(ReferenceEngine):
    """The reference engine, slower or leaking as the dose says."""

    def __init__(self) -> None:
        super().__init__()
        self._doses = DoseFile(Path(os.environ[DOSE]))
        self._dose = Dose()
        self._kept: list[Any] = []

    def model_load(self, params: m.ModelLoad) -> m.ModelLoaded:
        """Load, and take longer."""
        return self._longer(lambda: super(DosedEngine, self).model_load(params))

    def generate(self, params: m.Generate) -> m.Generation:
        """Keep bytes, generate, and take longer."""
        self._leak()
        return self._longer(lambda: super(DosedEngine, self).generate(params))

    def storage_upload_staged(self, params: m.UploadStaged) -> None:
        """Copy, and take longer."""
        self._longer(lambda: super(DosedEngine, self).storage_upload_staged(params))

    def storage_drop(self, params: m.Drop) -> None:
        """Keep bytes of what is dropped."""
        self._leak()
        super().storage_drop(params)

    def device_close(self, params: m.Handle) -> None:
        """Keep bytes of a device that is closed."""
        self._leak()
        super().device_close(params)

    def _longer(self, work: Callable[[], Answer]) -> Answer:
        slowdowns = self._doses.dose().slowdowns
        began = time.perf_counter()
        answer = work()
        took = time.perf_counter() - began
        reached = [_spin_until(began + took * (1 + slowdown)) for slowdown in slowdowns]
        if len(reached) > 1:
            self._doses.note([reached[-1] - moment for moment in reached])
        return answer

    def _leak(self) -> None:
        dose = self._doses.dose()
        if dose != self._dose:
            self._dose = dose
            self._give_back()
        if dose.leak:
            self._kept.append(self._storage(dose.leak) if dose.accounted else self._bare(dose.leak))

    def _give_back(self) -> None:
        """Start over: what another dose had kept must not be there for this one to use."""
        import torch

        for kept in self._kept:
            if not isinstance(kept, torch.Tensor):
                kept.drop()
        self._kept.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        _trim_heap()

    def _bare(self, nbytes: int) -> Any:
        import torch

        device = self._some_device()
        return torch.ones(nbytes, dtype=torch.uint8, device=device.torch if device is not None else "cpu")

    def _storage(self, nbytes: int) -> Any:
        from reference_engine.storage import CudaStorage

        device = self._some_device()
        assert device is not None
        return CudaStorage.from_bytes(bytes(nbytes), "F32", [nbytes // 4], device)

    def _some_device(self) -> Device | None:
        return next((held.device for _, held in self._held if isinstance(held, OpenDevice)), None)


def _spin_until(moment: float) -> float:
    """Keep the processor busy; sleeping is too coarse for a hundredth of a millisecond."""
    while (now := time.perf_counter()) < moment:
        pass
    return now


def _trim_heap() -> None:
    """Give freed host memory back to the system, where the C library knows how."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


if __name__ == "__main__":
    from conformance.protocol import host

    host.serve(DosedEngine)
