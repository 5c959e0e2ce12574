"""Ends and silences: they count only where survival is what is claimed."""

from __future__ import annotations

import os
import signal
import time

from conformance.faults.planting import Plant, fault

_EVERYTHING = ("parse", "err", "cuda", "load", "qual", "dtype", "mem")


def _instead_of_refusing(plant, end):
    """Do `end` where an invalid file would be refused."""
    from reference_engine import files
    from reference_engine.errors import InvalidFile

    def ended(parse, *arguments):
        try:
            return parse(*arguments)
        except InvalidFile:
            end()
            raise

    plant.replace(files, "parse_header", ended)


@fault(expects={"F-PARSE-041": "files", "F-PARSE-042": "files"}, blast=_EVERYTHING, crash=True)
def invalid_header_aborts(plant: Plant) -> None:
    """An invalid header aborts the process, as an assertion would."""
    _instead_of_refusing(plant, os.abort)


@fault(expects={"F-PARSE-044": "files"}, blast=_EVERYTHING, crash=True)
def invalid_header_faults(plant: Plant) -> None:
    """An invalid header ends in a segmentation fault."""
    _instead_of_refusing(plant, lambda: os.kill(os.getpid(), signal.SIGSEGV))


@fault(expects={"F-PARSE-043": "files"}, blast=_EVERYTHING, crash=True)
def invalid_header_exits_with_zero(plant: Plant) -> None:
    """An invalid header ends the process with status 0."""
    _instead_of_refusing(plant, lambda: os._exit(0))


@fault(expects={"F-PARSE-044": "files"}, blast=_EVERYTHING, crash=True, call_s=3.0)
def invalid_header_hangs(plant: Plant) -> None:
    """An invalid header is parsed without end."""
    _instead_of_refusing(plant, lambda: time.sleep(3600))


@fault(expects={"F-CUDA-016": "engine"}, blast=("cuda", "F-ERR-092"), crash=True,
       seen_in="llama-cpp-python#374, llamafile#598")  # fmt: skip
def out_of_memory_aborts(plant: Plant) -> None:
    """Want of memory aborts the process."""
    from reference_engine.device import Device
    from reference_engine.errors import OutOfDeviceMemory

    def aborting(empty, self, *rest):
        try:
            return empty(self, *rest)
        except OutOfDeviceMemory:
            os.abort()

    plant.replace(Device, "empty", aborting)


def _instead_of_refusing_to_load(plant, end):
    """Do `end` where a model would be refused."""
    from reference_engine.engine import Engine
    from reference_engine.errors import EngineError

    def ended(load, cls, *rest):
        try:
            return load(cls, *rest)
        except EngineError:
            end()

    plant.replace(Engine, "load", ended)


@fault(expects={"F-ERR-091": "engine"}, blast=_EVERYTHING, crash=True)
def absent_model_exits(plant: Plant) -> None:
    """A model that is not there ends the driver."""
    _instead_of_refusing_to_load(plant, lambda: os._exit(1))


@fault(expects={"F-ERR-093": "engine"}, blast=_EVERYTHING, crash=True, seen_in="realizar 734b9965")
def broken_model_hangs(plant: Plant) -> None:
    """A checkpoint that cannot be used is waited for."""
    _instead_of_refusing_to_load(plant, lambda: time.sleep(3600))
