"""IX. Error Handling: through the protocol and the command line, a clear error and never a panic."""

from __future__ import annotations

import json
from pathlib import Path

from checks.support.building import ready
from checks.support.checkpoints import broken_checkpoints, checkpoint_with_dtype
from checks.support.command_line import arguments, cli, device_flags, run_command
from checks.support.errors import observe_clear_failure, observe_refused_load, run_on, tree_sha256
from checks.support.memory_hog import device_filled
from checks.support.quality import first_golden, loaded_from, loaded_model
from conformance.corpus.geometry import geometry_checkpoint
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import ErrorKind, FileOpen, Generate, ModelLoad
from conformance.sources import errors_shown
from conformance.sources.workshop import run
from conformance.trial.stand import NotTried, Stand

NOT_A_MODEL = (ErrorKind.INVALID_FILE, ErrorKind.INVALID_MODEL, ErrorKind.FILE_NOT_FOUND, ErrorKind.PERMISSION_DENIED)


def test_f_err_091(stand: Stand) -> None:
    absent = stand.directory / "no-such-model.safetensors"
    before = tree_sha256(stand.directory)
    observe_refused_load(stand, "model", absent, [ErrorKind.FILE_NOT_FOUND], [absent.name])
    try:
        stand.engine.call("file.open", FileOpen(str(absent)))
    except EngineRefused as refusal:
        stand.equal("typed/file", expected=ErrorKind.FILE_NOT_FOUND, observed=refusal.kind)
        stand.equal("names/file", expected=True, observed=absent.name in refusal.message)
    else:
        stand.failed("typed/file", "accepted", "a file that does not exist was opened")
    output = run_on(stand, absent)
    stand.equal("nothing_changed", expected=before, observed=tree_sha256(stand.directory))
    observe_clear_failure(stand, "run", output, [absent.name])
    chat = [*arguments(stand, cli(stand).chat, model=absent), *device_flags(stand)]
    observe_clear_failure(stand, "chat", run_command(stand, chat, stdin=b"Hello\n"), [absent.name])


def test_f_err_092(stand: Stand) -> None:
    if not stand.needs_gpu(*stand.row.observes):
        return
    large = geometry_checkpoint("F32")
    with device_filled(stand) as free:
        try:
            stand.engine.call("model.load", ModelLoad(str(large), stand.model_device, "F32"))
        except EngineRefused as refusal:
            stand.equal("typed/load", expected=ErrorKind.OUT_OF_MEMORY, observed=refusal.kind, note=refusal.message)
        else:
            stand.failed("typed/load", "accepted", f"a model was loaded with {free} bytes free")
        observe_clear_failure(stand, "run", run_on(stand, large), ["memory"])
    _observe_serving(stand)


def _observe_serving(stand: Stand) -> None:
    """Observe `serves_afterwards`: after all that was refused, a whole model is loaded and answers."""
    golden = first_golden(stand)
    with loaded_model(stand) as model:
        answer = stand.engine.call(
            "generate", Generate(model.handle, golden.max_tokens, prompt_ids=list(golden.prompt_ids))
        )
        stand.equal("serves_afterwards", expected=list(golden.ids), observed=answer.ids)


def test_f_err_093(stand: Stand) -> None:
    with loaded_model(stand):
        stand.equal("control_loads", expected=True, observed=True)
    for case, (path, names) in broken_checkpoints(stand).items():
        observe_refused_load(stand, case, path, NOT_A_MODEL, names)
        if case in {"truncated", "no-config", "foreign", "hostile-name", "directory-empty"}:
            observe_clear_failure(stand, case, run_on(stand, path), names)
    _observe_serving(stand)


def test_f_err_094(stand: Stand) -> None:
    control, tensor = checkpoint_with_dtype(stand, "F32")
    with loaded_from(stand, control):
        stand.equal("control_loads", expected=True, observed=True)
    for dtype in ("F64", "I32", "I64", "U8", "BOOL"):
        path, tensor = checkpoint_with_dtype(stand, dtype)
        observe_refused_load(stand, dtype, path, [ErrorKind.UNSUPPORTED_DTYPE], [tensor, dtype])
    path, tensor = checkpoint_with_dtype(stand, "F64")
    observe_clear_failure(stand, "run", run_on(stand, path), [tensor, "F64"])


def test_f_err_095(stand: Stand) -> None:
    base = stand.manifest.manifest.roles.get("Error")
    if base is None or stand.manifest.manifest.engine.language != "python":
        raise NotTried("the manifest names no Error role to list the engine's error types by reflection")
    made = ready(stand)
    asked = run([made.python, "-I", str(Path(errors_shown.__file__)), base], Path(made.site), 120)
    shown: dict[str, dict[str, object]] = json.loads(asked.output.splitlines()[-1])
    stand.measured("types", len(shown), "error types")
    stand.equal("unbuilt", expected=[], observed=[name for name, one in shown.items() if one.get("error")])
    stand.equal("bare", expected=[], observed=[name for name, one in shown.items() if not one.get("says_something")])
    stand.equal(
        "fields_lost", expected={}, observed={name: one["lost"] for name, one in shown.items() if one.get("lost")}
    )
