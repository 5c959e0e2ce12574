"""Errors that end a command with one line instead of a traceback."""

from __future__ import annotations

from typing import ClassVar

from conformance.verdicts import ExitCode


class Reported(Exception):
    """What the user can mend: its text is the line, and says how; 2 is the exit code unless a subclass says else."""

    exit_code: ClassVar[ExitCode] = ExitCode.USAGE
