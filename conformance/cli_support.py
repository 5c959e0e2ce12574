"""How every command ends: a user's mistake in one line with exit code 2, ours with 4."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

from conformance.verdicts import ExitCode

Value = TypeVar("Value")


def or_usage(action: Callable[[], Value]) -> Value:
    """The action's value; an error that the user can mend is one line and exit code 2."""
    from conformance.calibration.pool import BrokenPool, PoolTooSmall  # noqa: PLC0415
    from conformance.calibration.results import BrokenCalibration  # noqa: PLC0415
    from conformance.catalogue import UnknownSelector  # noqa: PLC0415
    from conformance.corpus.cache import ContentChanged  # noqa: PLC0415
    from conformance.corpus.models import ModelNotFound  # noqa: PLC0415
    from conformance.corpus.safetensors.export import NotEmpty  # noqa: PLC0415
    from conformance.corpus.smollm2 import DownloadFailed  # noqa: PLC0415
    from conformance.faults.planting import UnknownFault  # noqa: PLC0415
    from conformance.faults.problems import BadDevices, BadShard, BrokenLedger  # noqa: PLC0415
    from conformance.gate.policy import BrokenGate  # noqa: PLC0415
    from conformance.manifest import BrokenManifest, EngineNotInstalled, PortTaken, UnknownEngine  # noqa: PLC0415
    from conformance.probes.nvml import DeviceUnusable  # noqa: PLC0415
    from conformance.record import BrokenRecord  # noqa: PLC0415
    from conformance.thresholds import BrokenThresholds  # noqa: PLC0415
    from conformance.trial.inventory import CatalogueMismatch  # noqa: PLC0415
    from conformance.trial.room import DiskFull  # noqa: PLC0415
    from conformance.trial.runner import GpuRequired  # noqa: PLC0415
    from conformance.trial.sharding import NotAShard  # noqa: PLC0415
    from reports.tables import BrokenTable  # noqa: PLC0415

    try:
        return action()
    except (
        UnknownSelector, NotAShard, UnknownEngine, BrokenManifest, EngineNotInstalled, ModelNotFound, DownloadFailed,
        ContentChanged, GpuRequired, NotEmpty, BrokenGate, BrokenRecord, BrokenThresholds, BrokenTable, UnknownFault,
        BadDevices, BadShard, BrokenLedger, PortTaken, BrokenPool, PoolTooSmall, BrokenCalibration,
    ) as error:  # fmt: skip
        usage(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        usage(f"{error.filename}: {error.strerror}")
    except (CatalogueMismatch, DeviceUnusable, DiskFull) as error:
        end(str(error), ExitCode.HARNESS)


def or_unwritable(action: Callable[[], Value]) -> Value:
    """The action's value; a record that cannot be written is one line and exit code 4."""
    from conformance.trial.recorder import RecordUnwritable  # noqa: PLC0415

    try:
        return action()
    except RecordUnwritable as error:
        end(str(error), ExitCode.HARNESS)


def usage(message: str) -> NoReturn:
    """What the user can mend, in one line."""
    end(message, ExitCode.USAGE)


def end(message: str, code: ExitCode) -> NoReturn:
    """One line on standard error, then the code; a reader who has gone away changes nothing about it."""
    with suppress(OSError):
        sys.stderr.write(f"falsify: {message}\n")
        sys.stderr.flush()
    raise SystemExit(int(code))
