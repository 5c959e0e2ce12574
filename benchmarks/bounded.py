"""Commands that end in time, with all that they started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO


def run_bounded(
    command: Sequence[str], said: IO[bytes], seconds: float, *, cwd: Path, env: Mapping[str, str], grace: float = 0.0
) -> str:
    """Run a command in a process group of its own, of which nothing goes on running; in words, how it ended.

    Args:
        command: Program and arguments.
        said: Where both of its streams go.
        seconds: The most it may take.
        cwd: Its directory.
        env: Its whole environment.
        grace: Seconds that it gets after a ^C, to close what it has open, before it is killed.
    """
    process = subprocess.Popen(
        command, cwd=cwd, env=env, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
    )  # fmt: skip
    try:
        return f"exit status {process.wait(timeout=seconds)}"
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace)
        return f"cut after {seconds:.0f} s"
    finally:
        # A command may end before what it started.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
