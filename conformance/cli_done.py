"""The command line of the definition of done: every gate by its command, against its threshold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conformance.cli_support import or_usage, usage

if TYPE_CHECKING:
    from conformance.done.gates import DoneLine


def add_to(app: typer.Typer) -> None:
    """Add `done` to the command line."""
    app.command()(done)


def done(
    engine: Annotated[str, typer.Option("--engine", help="A shipped engine or a manifest's path.")] = "reference",
    gate: Annotated[list[str] | None, typer.Option("--gate", metavar="KEY", help="This gate; repeatable.")] = None,
    out: Annotated[Path, typer.Option(help="Where done.json and what commands leave go.")] = Path("falsify-done"),
) -> None:
    """Measure the specification's definition of done: each gate by the command that the manifest names.

    Exit codes: 0 every gate that is asked is met (or warns, where the specification does), 1 one is not, 3 one is
    untested. With --gate they speak of the chosen ones alone, and done.json says of the others that they are untested.

    Examples:  falsify done   |   falsify done --gate satd   |   falsify done --engine my-engine.toml
    """
    import msgspec  # noqa: PLC0415  --help must be fast

    from conformance.done.gates import exit_code, load_gates  # noqa: PLC0415
    from conformance.done.measuring import measure_all  # noqa: PLC0415
    from conformance.manifest import load_manifest  # noqa: PLC0415

    manifest = or_usage(lambda: load_manifest(engine))
    gates = load_gates()
    known = [one.key for one in gates]
    for key in (*(gate or ()), *manifest.manifest.done):
        if key not in known:
            usage(f"no gate {key!r}: {', '.join(known)}")
    or_usage(lambda: out.mkdir(parents=True, exist_ok=True))
    chosen = gate or known
    lines = measure_all(manifest, gates, chosen, out.resolve(), _said)
    (out / "done.json").write_bytes(msgspec.json.format(msgspec.json.encode(lines), indent=1) + b"\n")
    raise typer.Exit(int(exit_code([line for line in lines if line.key in chosen])))


def _said(line: DoneLine) -> None:
    value = "" if line.value is None else f"{line.value:.6g} ({line.threshold})"
    typer.echo(f"{line.verdict.upper():10} {line.name}: {' '.join(part for part in (value, line.reason) if part)}")
