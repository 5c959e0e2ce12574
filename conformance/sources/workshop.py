"""A clean export of an engine's sources, built and installed into a fresh environment.

Everything happens in one directory of the run; the engine's own checkout is only read. It works without a .git
folder and without a network: no build isolation, no dependencies, the runner's packages made visible.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import msgspec

from conformance.manifest import CommandTable, LoadedManifest, SourceTable

_NEVER_EXPORTED = {".git", ".nox", ".venv", "__pycache__", "build", "dist", "falsify-run", ".mypy_cache", ".ruff_cache"}
_TAIL = 4000


class NothingExported(Exception):
    """The manifest's source table matches no file; a build of nothing must not look like a success."""

    def __init__(self, root: Path) -> None:
        self.root = root
        super().__init__(f"{root}: the manifest's [source] include matches no file")


class Ran(msgspec.Struct, frozen=True):
    """A finished command: its exit status (None when it ran out of time) and the end of what it printed."""

    command: list[str]
    status: int | None
    output: str

    @property
    def ok(self) -> bool:
        """True when it ended with 0."""
        return self.status == 0

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
    """Run a command to its end or out of time; its output is bounded."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "COVERAGE_"))
    }
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        return Ran(command, None, _end(late.output) + f"\nran longer than {timeout:g} s")
    except OSError as error:
        return Ran(command, None, f"cannot start {command[0]}: {error.strerror}")
    return Ran(command, done.returncode, _end(done.stdout))


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


def _end(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")[-_TAIL:]
