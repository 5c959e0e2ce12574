"""Which sources ran: the git revision, or a hash of the sources where there is no repository."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import msgspec

PACKAGES = ("conformance", "reference_engine", "checks", "reports")
_NOT_SOURCES = (":(exclude)falsify-run",)
SUFFIXES = {".py", ".toml", ".jinja", ".css", ".js", ".c"}


class Revision(msgspec.Struct, frozen=True):
    """`git:<commit>` with whether the tree was changed, or `sources:<sha256>` (never dirty: it is what ran)."""

    name: str
    dirty: bool


def revision(root: Path | None = None) -> Revision:
    """The revision of the project at `root` (default: where this package lies)."""
    root = root or Path(__file__).resolve().parent.parent
    commit = _git(root, "rev-parse", "HEAD") if (root / ".git").exists() else None
    if commit is None:
        return Revision(f"sources:{sources_sha256(root)}", dirty=False)
    # New files count: an uncommitted check runs like any other. Where git cannot say, nothing is claimed to be clean.
    changes = _git(root, "status", "--porcelain", "--untracked-files=all", "--", ".", *_NOT_SOURCES)
    return Revision(f"git:{commit}", dirty=changes != "")


def sources_name(root: Path | None = None) -> str:
    """The name of exactly what runs: the commit, or the hash of the sources where they are not what it holds."""
    root = root or Path(__file__).resolve().parent.parent
    found = revision(root)
    return f"sources:{sources_sha256(root)}" if found.dirty else found.name


def sources_sha256(root: Path) -> str:
    """One hash over names and bytes of all source files of the project's packages."""
    digest = hashlib.sha256()
    files = (path for package in PACKAGES for path in (root / package).rglob("*") if path.suffix in SUFFIXES)
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607  git is found on PATH like every tool
            capture_output=True,
            text=True,
            timeout=10,
            env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")},
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
