"""A clean export of an engine's sources, built and installed into a fresh environment.

Everything happens in one directory of the run; the engine's own checkout is only read. It works without a .git
folder and without a network: no build isolation, no dependencies, the runner's packages made visible.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import venv
from pathlib import Path

import msgspec

from conformance.manifest import CommandTable, LoadedManifest, SourceTable
from conformance.protocol.failures import DriverNotStarted
from conformance.protocol.process import CHUNK_BYTES, Ended, GuardedProcess, Tail

_NEVER_EXPORTED = {".git", ".nox", ".venv", "__pycache__", "build", "dist", "falsify-run", ".mypy_cache", ".ruff_cache"}
_TAIL = 64 * 1024


class NothingExported(Exception):
    """The manifest's source table matches no file; a build of nothing must not look like a success."""

    def __init__(self, root: Path) -> None:
        self.root = root
        super().__init__(f"{root}: the manifest's [source] include matches no file")


class Ran(msgspec.Struct, frozen=True):
    """A finished command: exit status (negative: the signal; None: it did not start or not end) and its last words."""

    command: list[str]
    status: int | None
    stdout: str = ""
    stderr: str = ""

    @property
    def ok(self) -> bool:
        """True when it ended with 0."""
        return self.status == 0

    @property
    def output(self) -> str:
        """Both streams, standard output last."""
        return self.stderr + self.stdout

    @property
    def told(self) -> str:
        """One line for a verdict: the status and the last line of output."""
        last = next((line for line in reversed(self.output.splitlines()) if line.strip()), "")
        return f"exit status {self.status}: {last.strip()}"


class Installed(msgspec.Struct, frozen=True):
    """A fresh environment with the built artefact in it, and the logs of how it came about."""

    artefact: str
    python: str
    site: str
    build: Ran
    install: Ran

    @property
    def ok(self) -> bool:
        """True when there is an artefact and it was installed."""
        return bool(self.artefact) and self.build.ok and self.install.ok


class Workshop:
    """Exports, builds and runs the manifest's commands under one directory."""

    def __init__(self, manifest: LoadedManifest, directory: Path) -> None:
        self.manifest = manifest
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def source(self) -> SourceTable | None:
        """The manifest's source table."""
        return self.manifest.manifest.source

    @property
    def root(self) -> Path:
        """Where the engine's sources lie; meaningful only with a source table."""
        return (self.manifest.path.parent / (self.source.root if self.source else ".")).resolve()

    def export(self, name: str) -> Path:
        """A fresh copy of the included sources.

        Raises:
            NothingExported: no file matched.
        """
        target = self.directory / name
        shutil.rmtree(target, ignore_errors=True)
        files = self.files()
        for file in files:
            copy = target / file.relative_to(self.root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        if not files:
            raise NothingExported(self.root)
        return target

    def files(self) -> list[Path]:
        """The source files that belong to the engine, links and build products left out."""
        include = self.source.include if self.source else []
        found = {path for pattern in include for path in self.root.glob(pattern)}
        return sorted(path for path in found if path.is_file() and not path.is_symlink() and not self._skipped(path))

    def _skipped(self, path: Path) -> bool:
        parts = path.relative_to(self.root).parts
        return any(part in _NEVER_EXPORTED or part.endswith(".egg-info") for part in parts)

    def run(self, table: CommandTable, cwd: Path, **placeholders: str) -> Ran:
        """Run a manifest command in an exported copy."""
        return run(self.manifest.filled(table.command, **placeholders), cwd, table.timeout_s)

    def install(self, table: CommandTable) -> Installed:
        """Build the artefact in a fresh export and install it into a fresh environment."""
        copy, out = self.export("export"), self.directory / "artefacts"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        built = self.run(table, copy, out=str(out))
        found = sorted(out.glob(table.artefact)) if built.ok and table.artefact else []
        if not found:
            return Installed("", "", "", built, Ran([], None, "nothing to install: the build left no artefact"))
        python, site = fresh_environment(self.directory / "environment")
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index"]
        installed = run([*command, "--no-deps", "--no-cache-dir", str(found[0])], self.directory, table.timeout_s)
        return Installed(str(found[0]), str(python), str(site), built, installed)


def run(command: list[str], cwd: Path, timeout: float) -> Ran:
    """Run a command to its end or out of time, all its descendants included; what is kept of its output is bounded."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "COVERAGE_"))
    }
    try:
        process = GuardedProcess(command, cwd=cwd, env=environment, line_bytes=CHUNK_BYTES, stderr_bytes=_TAIL)
    except DriverNotStarted as error:
        return Ran(command, None, stderr=f"cannot start: {error.cause}")
    said = Tail(_TAIL)
    try:
        process.close_stdin()
        late = not _follow(process, said, time.monotonic() + timeout)
    finally:
        process.kill()
    note = f"\nran longer than {timeout:g} s" if late else ""
    return Ran(command, None if late else _status(process.ended), said.text() + note, process.stderr_tail())


def _follow(process: GuardedProcess, said: Tail, deadline: float) -> bool:
    """Read what the command prints until it has ended; False if the deadline came first."""

    def listening() -> bool:
        said.add(bytes(process.stdout))
        process.stdout.clear()
        return process.stdout_open

    while not process.over:
        listening()
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        process.pump(left)
    process.drain(listening)
    listening()
    return True


def _status(ended: Ended | None) -> int | None:
    if ended is None:
        return None
    return ended.exit_status if ended.signal is None else -ended.signal


def fresh_environment(directory: Path) -> tuple[Path, Path]:
    """A new virtual environment that sees the runner's packages but not the project; (python, site directory)."""
    shutil.rmtree(directory, ignore_errors=True)
    venv.EnvBuilder(with_pip=False, symlinks=True).create(directory)
    python = directory / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = directory / "lib" / version / "site-packages"
    (site / "runner-packages.pth").write_text("".join(f"{path}\n" for path in _runner_packages()))
    return python, site


def _runner_packages() -> list[str]:
    """Directories on this process's path that packages were installed into; a checkout is none of them."""
    places = (Path(path) for path in sys.path if path)
    return [str(place) for place in places if place.is_dir() and next(place.glob("*.dist-info"), None)]
