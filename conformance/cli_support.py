"""How every command ends: a user's mistake in one line with exit code 2, ours with 4."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn, TypeVar

from conformance.reported import Reported
from conformance.verdicts import ExitCode

Value = TypeVar("Value")
_LAST_STREAM = 2


def open_streams() -> None:
    """Open the standard streams that the caller closed: a file of ours in their place would be taken for one."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", errors="replace", closefd=False))


def or_usage(action: Callable[[], Value]) -> Value:
    """The action's value; an error that is `Reported`, or that names a path, is one line and its exit code."""
    try:
        return action()
    except Reported as error:
        end(str(error), error.exit_code)
    except OSError as error:
        if error.filename is None:
            raise
        usage(f"{error.filename}: {error.strerror}")


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
