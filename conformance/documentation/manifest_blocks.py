"""The manifest's reference: keys, types and defaults from its types, and what each key is for."""

from __future__ import annotations

import typing

import msgspec

from conformance.documentation.markdown import code, table
from conformance.documentation.structures import default_of, spoken, summary
from conformance.manifest import Manifest

COMMAND_MEANING = {
    "command": "Program and arguments, never a shell line.",
    "artefact": "Pattern of what a build leaves in `{out}`.",
    "timeout_s": "Seconds after which the command is ended and counts as failed.",
}
MEANING: dict[str, dict[str, str]] = {
    "engine": {
        "name": "What records and scorecards call it.",
        "version": "Overruled by what the driver says in `initialize`.",
        "language": "Roles are resolved by reflection only for `python`.",
        "formats": "Other formats it reads beside SafeTensors: `gguf`, `apr`; F-QUAL-076 and F-QUAL-077 try them.",
        "precision": "How F32 is multiplied: `ieee_f32`, `tf32` or `bf16`.",
        "requires": "Python modules that its driver imports; a trial without them ends with exit code 2.",
        "extra": "The extra of this project that brings them.",
        "programs": "Programs that must be on PATH; a trial without them ends with exit code 2.",
        "npm": "Packages that must lie in npm's global folder; a trial without them ends with exit code 2.",
        "reference": "Hardening is mandatory for it instead of a WARNING. Leave it out.",
    },
    "driver": {
        "command": "How the driver process is started.",
        "env": "Variables added to its environment.",
        "startup_timeout_s": "Seconds until `initialize` must be answered.",
    },
    "source": {
        "root": "Directory of the sources, relative to the manifest.",
        "include": "Glob patterns below the root; only these files are exported, built and scanned.",
        "language": "Which scanner looks for unexplained unsafe code: `python` or `rust`.",
    },
    "build": COMMAND_MEANING,
    "lint": COMMAND_MEANING,
    "docs": COMMAND_MEANING,
    "tests": COMMAND_MEANING,
    "cli": {
        "command": "The program; what follows is appended to it.",
        "env": "Variables added to its environment.",
        "run": "Arguments that answer one prompt.",
        "chat": "Arguments that open a conversation.",
        "gpu": "Arguments that insist on a GPU.",
        "cpu": "Arguments that insist on the CPU.",
        "json": "Arguments that ask for a JSON object on standard output.",
        "verbose": "Arguments that ask for the backend to be named.",
        "backend_gpu": "Pattern of the verbose line that names a GPU.",
        "backend_cpu": "Pattern of the verbose line that names the CPU.",
        "text_field": "Field of the JSON object that holds the answer.",
        "used_gpu_field": "Field of the JSON object that says whether a GPU answered.",
        "answer": "Pattern whose group `answer` is the generated text in plain output.",
    },
    "server": {
        "command": "How the server is started; `{model}` and `{port}` are filled in. It must listen on 127.0.0.1.",
        "model": "What it loads: a checkpoint's `directory`, or a GGUF that this project makes of it.",
        "port": "Its port; 0 is any free one. One that is taken ends the trial before it begins.",
        "health": "Path that is answered 200 when it is up.",
        "model_name": "The `model` of every request; `{model}` is filled in.",
        "request": "More fields of every request.",
        "accepts_ids": "Whether a prompt may be a list of ids; otherwise ids travel as text.",
        "ignore_eos": "Name of the field that makes it decode past the end; empty where it has none.",
        "startup_timeout_s": "Seconds until it must be healthy.",
        "answer_timeout_s": "Seconds until a request must be answered.",
    },
    "done": COMMAND_MEANING
    | {
        "value": "Pattern with a group `value`, or `part` and `rest`; its last match in the output is the number.",
        "count": "Pattern whose matches in the output are counted instead.",
    },
}
LISTS = {
    "roles": "Role names of the specification, each with where it lies in the engine (`module:attribute.path` for "
    "Python). A role that is left out resolves to nothing.",
    "untested": "Rows (`F-LOAD-056`) or sections (`load`) that make no sense for this engine, each with the reason. "
    "They are UNTESTED with it, and UNTESTED is never a pass.",
}
_TITLES = {"done": "done.<gate>"}


def manifest_tables() -> str:
    """One section a table, one line a key."""
    hints = typing.get_type_hints(Manifest)
    return "\n\n".join(_section(name, hints[name]) for name in hints)


def _section(name: str, hint: object) -> str:
    kind = _struct(hint)
    if kind is None:
        return f"### `[{name}]`\n\n{LISTS[name]}"
    required = "required" if name == "engine" else "optional"
    hints = typing.get_type_hints(kind)
    rows = [
        [code(field.name), spoken(hints[field.name]), default_of(field), MEANING[name][field.name]]
        for field in msgspec.structs.fields(kind)
    ]
    title = _TITLES.get(name, name)
    return f"### `[{title}]` ({required})\n\n{summary(kind)}\n\n{table(['key', 'type', 'default', 'meaning'], rows)}"


def _struct(hint: object) -> type[msgspec.Struct] | None:
    parts = typing.get_args(hint) or (hint,)
    return next((part for part in parts if isinstance(part, type) and issubclass(part, msgspec.Struct)), None)
