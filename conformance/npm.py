"""Packages of npm's global folder, for engines in JavaScript."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache
from pathlib import Path

_TIMEOUT_S = 60.0


def npm_package(name: str) -> Path:
    """Where `npm install --global NAME` puts a package; nothing need be there."""
    return _root() / name


@cache
def _root() -> Path:
    npm = shutil.which("npm")
    if npm is None:
        return Path("no-npm-on-path")
    done = subprocess.run([npm, "root", "--global"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    return Path(done.stdout.strip() or "no-global-folder-of-npm")
