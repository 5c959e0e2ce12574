"""What a clear error is, through the protocol and through the command line."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from checks.support.command_line import Output, arguments, cli, device_flags, run_command
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import ErrorKind, ModelLoad
from conformance.trial.stand import Stand


def observe_refused_load(
    stand: Stand, case: str, path: Path, kinds: Sequence[ErrorKind], names: Sequence[str] = ()
) -> None:
    """Observe that loading a model is refused with a typed error that names what it must."""
    try:
        stand.engine.call("model.load", ModelLoad(str(path), stand.model_device))
    except EngineRefused as refusal:
        stand.equal(
            f"typed/{case}", expected=True, observed=refusal.kind in kinds, note=f"{refusal.kind}: {refusal.message}"
        )
        absent = [name for name in names if name not in refusal.message]
        stand.equal(f"names/{case}", expected=[], observed=absent, note=refusal.message)
    else:
        stand.failed(f"typed/{case}", "accepted", f"{path.name} was loaded as a model")


def observe_clear_failure(stand: Stand, case: str, output: Output, names: Sequence[str] = ()) -> None:
    """Observe what every failing command owes its user: a status, one clear line, no traceback, no result."""
    stand.attach_text(f"{case.replace('/', '-')}.txt", f"status {output.status}\n{output.stdout}\n---\n{output.stderr}")
    stand.equal(f"exit_status/{case}", expected=True, observed=output.status is not None and output.status > 0)
    stand.equal(f"no_panic/{case}", expected=None, observed=output.trace)
    stand.equal(f"stdout_empty/{case}", expected="", observed=output.stdout.strip())
    absent = [name for name in names if name not in output.stderr]
    stand.equal(f"message_names/{case}", expected=[], observed=absent, note=output.first_error)
    lines = [line for line in output.stderr.splitlines() if line.strip()]
    stand.equal(f"one_line/{case}", expected=1, observed=len(lines), hardening=True, note=output.first_error)


def run_on(stand: Stand, path: Path, *, unprivileged: bool = False) -> Output:
    """`apr run PATH Hello` on the trial's device."""
    command = arguments(stand, cli(stand).run, model=path, prompt="Hello", max_tokens=4)
    return run_command(stand, [*command, *device_flags(stand)], unprivileged=unprivileged)


def tree_sha256(directory: Path) -> str:
    """One hash over names, sizes and bytes of a small directory, to show that nothing was changed."""
    digest = hashlib.sha256()
    for path in sorted(directory.rglob("*")):
        digest.update(str(path.relative_to(directory)).encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()
