"""Engine manifests (TOML): how to start, build, lint and document an engine, and what its roles are called."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import shutil
import socket
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from conformance.npm import npm_package
from conformance.reported import Reported

ENGINES_DIRECTORY = Path(__file__).with_name("engines")
Seconds = Annotated[float, msgspec.Meta(gt=0, le=86_400)]
Command = Annotated[list[str], msgspec.Meta(min_length=1)]
_PLACEHOLDER = re.compile(r"\{(\w+)\}")


class UnknownEngine(Reported):
    """No manifest of this name comes with the project and no file of this path exists."""

    def __init__(self, name: str, known: list[str]) -> None:
        self.name = name
        super().__init__(f"no engine {name!r}: give the path of a manifest, or one of {', '.join(known)}")


class BrokenManifest(Reported):
    """A manifest that cannot be read; the message names the file and the field."""

    def __init__(self, path: Path, cause: str) -> None:
        self.path, self.cause = path, cause
        super().__init__(f"{path}: {cause}")


class PortTaken(Reported):
    """Something else listens on the port that a manifest's server is to have; nobody was tried."""

    def __init__(self, engine: str, port: int) -> None:
        self.engine, self.port = engine, port
        super().__init__(
            f"engine {engine!r}: port {port} on 127.0.0.1 is taken; stop what listens there, or leave `port` out of "
            "the manifest for any free one"
        )


class EngineNotInstalled(Reported):
    """A module or program that the engine needs is not installed here; nobody was tried."""

    def __init__(self, engine: str, lacking: str, how: str) -> None:
        self.engine, self.lacking, self.how = engine, lacking, how
        super().__init__(f"engine {engine!r} is not installed: {lacking}; {how}")


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of all tables: a misspelt key is an error."""


class EngineTable(_Table, frozen=True):
    """Who the engine is.

    `precision` declares how it multiplies F32: ieee_f32, tf32 or bf16. `formats` are those it loads besides
    SafeTensors: gguf, apr. `requires` are Python modules that its driver imports, `extra` the extra that brings them;
    `programs` must be on PATH, `npm` are packages in npm's global folder.
    """

    name: str
    version: str = ""
    language: str = "python"
    precision: Literal["ieee_f32", "tf32", "bf16"] = "ieee_f32"
    formats: tuple[str, ...] = ()
    reference: bool = False
    requires: tuple[str, ...] = ()
    extra: str = ""
    programs: tuple[str, ...] = ()
    npm: tuple[str, ...] = ()


class DriverTable(_Table, frozen=True):
    """How its driver process is started. `{python}`, `{manifest}` and `{manifest_dir}` are filled in."""

    command: Command
    env: dict[str, str] = {}
    startup_timeout_s: Seconds = 60.0


class SourceTable(_Table, frozen=True):
    """Where its sources lie, relative to the manifest; `include` are glob patterns of what belongs to the engine."""

    root: str
    include: tuple[str, ...] = ("**/*.py",)
    language: str = "python"


class CommandTable(_Table, frozen=True):
    """A command run in an exported copy of the sources, and where its result lies."""

    command: Command
    artefact: str = ""
    timeout_s: Seconds = 300.0


class GateTable(CommandTable, frozen=True):
    """A command that measures a gate of the definition of done, and how its output is read.

    `value` is a pattern with a group `value`, or with `part` and `rest` for a share in per cent; its last match counts.
    `count` is a pattern whose matches are counted instead. A command without a number leaves its gate UNTESTED.
    """

    value: str = ""
    count: str = ""


class CliTable(_Table, frozen=True):
    """The command line that fills the role of `apr`; the defaults are the specification's own spelling.

    `run` and `chat` are arguments with `{model}`, `{prompt}` and `{max_tokens}` filled in. `backend_gpu` and
    `backend_cpu` are patterns that a line of the verbose output must match; the JSON fields are named too.
    """

    command: Command
    env: dict[str, str] = {}
    run: tuple[str, ...] = ("run", "{model}", "{prompt}", "--max-tokens", "{max_tokens}")
    chat: tuple[str, ...] = ("chat", "{model}", "--max-tokens", "{max_tokens}")
    gpu: tuple[str, ...] = ("--gpu",)
    cpu: tuple[str, ...] = ("--no-gpu",)
    json: tuple[str, ...] = ("--json",)
    verbose: tuple[str, ...] = ("--verbose",)
    backend_gpu: str = r"^Backend: GPU \("
    backend_cpu: str = r"^Backend: CPU \("
    text_field: str = "text"
    used_gpu_field: str = "used_gpu"
    answer: str = r"\A(?P<answer>.*)\Z"


class ServerTable(_Table, frozen=True):
    """An OpenAI-compatible HTTP server on 127.0.0.1, for the driver `conformance.engines.openai_engine`.

    `{model}` and `{port}` are filled in. `model` is what it loads: a checkpoint's `directory`, or a GGUF that this
    project makes of it. Port 0 is any free one. It is up when `health` answers 200. `model_name` goes into requests,
    with every field of `request`. `accepts_ids`: prompts may be lists of ids. `ignore_eos` names the field, if any,
    that makes it decode past the end.
    """

    command: Command
    model: Literal["directory", "gguf-f32", "gguf-f16", "gguf-bf16"] = "directory"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 0
    health: str = "/health"
    model_name: str = "{model}"
    request: dict[str, Any] = {}
    accepts_ids: bool = False
    ignore_eos: str = ""
    startup_timeout_s: Seconds = 120.0
    answer_timeout_s: Seconds = 300.0


class Manifest(_Table, frozen=True):
    """Everything the harness knows about an engine before it is started.

    `untested` maps a row or a section's key to the reason why it makes no sense for this engine: its rows are UNTESTED
    with it, which is never a pass.
    """

    engine: EngineTable
    driver: DriverTable | None = None
    roles: dict[str, str] = {}
    source: SourceTable | None = None
    build: CommandTable | None = None
    lint: CommandTable | None = None
    docs: CommandTable | None = None
    tests: CommandTable | None = None
    cli: CliTable | None = None
    server: ServerTable | None = None
    done: dict[str, GateTable] = {}
    untested: dict[str, Annotated[str, msgspec.Meta(min_length=1)]] = {}


class LoadedManifest(msgspec.Struct, frozen=True):
    """A manifest, the file it came from and that file's hash."""

    manifest: Manifest
    path: Path
    sha256: str

    def filled(self, command: Sequence[str], **extra: str) -> list[str]:
        """The command with `{python}`, `{manifest}`, `{manifest_dir}` and extra placeholders filled in."""
        values = {"python": sys.executable, "manifest": str(self.path), "manifest_dir": str(self.path.parent), **extra}
        return [_fill(word, values) for word in command]


def _fill(word: str, values: dict[str, str]) -> str:
    """In one pass: what is filled in is text, not a template."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), word)


def require_installed(loaded: LoadedManifest) -> None:
    """See that an engine's modules and programs are there, without importing them, and its server's port is free.

    Raises:
        EngineNotInstalled: a module or program is not.
        PortTaken: something listens on the port.
    """
    table, server = loaded.manifest.engine, loaded.manifest.server
    for module in table.requires:
        if importlib.util.find_spec(module.partition(".")[0]) is None:
            how = (
                f"pip install 'falsify-inference[{table.extra}]'" if table.extra else f"install what provides {module}"
            )
            raise EngineNotInstalled(table.name, f"no module {module!r} in this environment", how)
    for program in table.programs:
        if shutil.which(program) is None:
            raise EngineNotInstalled(table.name, f"no program {program!r} on PATH", f"install what provides {program}")
    for package in table.npm:
        if not npm_package(package).is_dir():
            raise EngineNotInstalled(table.name, f"no npm package {package!r}", f"npm install --global {package}")
    if server is not None and server.port and not port_is_free(server.port):
        raise PortTaken(table.name, server.port)


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1 now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def known_engines() -> list[str]:
    """Names of the manifests that come with the project."""
    return sorted(path.stem for path in ENGINES_DIRECTORY.glob("*.toml"))


def load_manifest(name: str) -> LoadedManifest:
    """Read the manifest of a shipped engine (`reference`) or of a file (`my-engine.toml`).

    Raises:
        UnknownEngine: neither a shipped name nor a file.
        BrokenManifest: not TOML, a missing or unknown field, a wrong type.
    """
    path = Path(name) if name.endswith(".toml") or "/" in name else ENGINES_DIRECTORY / f"{name}.toml"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UnknownEngine(name, known_engines()) from error
    try:
        table: dict[str, Any] = tomllib.loads(raw.decode())
        manifest = msgspec.convert(table, Manifest)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise BrokenManifest(path, str(error)) from error
    return LoadedManifest(manifest, path.resolve(), hashlib.sha256(raw).hexdigest())
