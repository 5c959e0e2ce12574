"""The command line of planted faults: which row sees which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from conformance.cli_support import or_usage
from conformance.verdicts import ExitCode

if TYPE_CHECKING:
    from conformance.faults.matrix import Matrix


def add_to(app: typer.Typer) -> None:
    """Add `severity` to the command line."""
    app.command()(severity)


def severity(  # noqa: PLR0917  one parameter an option
    fault: Annotated[list[str] | None, typer.Option("--fault", metavar="NAME", help="This fault; repeatable.")] = None,
    area: Annotated[list[str] | None, typer.Option(help="Faults of this area; repeatable.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Every fault against every row, instead of a sample.")] = False,
    machine: Annotated[
        str, typer.Option(help="Only faults for `cpu` or `gpu`; default: all that this machine can show.")
    ] = "",
    fault_module: Annotated[
        Path | None, typer.Option(help="A Python file with faults that live outside the project.", exists=True)
    ] = None,
    listing: Annotated[bool, typer.Option("--list", help="Name the faults and run nothing.")] = False,
    out: Annotated[
        Path, typer.Option(help="Where severity.json, its page and the trials go; what is there already goes on.")
    ] = Path("severity-run"),
    workers: Annotated[int, typer.Option("-n", "--workers", min=1, help="Trials at a time.")] = 2,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Every N-th fault, beginning with the I-th.")] = "",
    limit: Annotated[float, typer.Option(min=1.0, help="Seconds that the trial of one fault may take.")] = 600.0,
    devices: Annotated[
        str, typer.Option(help="GPUs to use, by NVML's number: `1`, `0,1`, or `none` to rehearse beside them.")
    ] = "",
    joined: Annotated[
        list[Path] | None,
        typer.Option("--join", metavar="DIR", help="Run nothing: judge what lies in these; --out names the JSON file."),
    ] = None,
) -> None:
    """Plant faults into the reference engine and show which rows see each; the kill matrix of check and fault.

    Exit codes: 0 every fault was seen for what it is, and the healthy engine survived; 1 otherwise.

    Examples:  falsify severity   |   falsify severity --fault qkv-bias-dropped   |   falsify severity --full
    """
    from conformance.faults.planting import known_faults  # noqa: PLC0415
    from conformance.faults.running import chosen_faults, confined, join, run_and_write, shard_of  # noqa: PLC0415

    if joined:
        _end(or_usage(lambda: join(joined, known_faults(fault_module), out)), out)
    or_usage(lambda: confined(devices))
    chosen = or_usage(
        lambda: shard_of(chosen_faults(known_faults(fault_module), fault or [], area or [], machine), shard)
    )
    if listing:
        for one in chosen:
            typer.echo(f"{one.name}\t{one.area}\t{one.machine}\t{one.what}")
        return
    out.mkdir(parents=True, exist_ok=True)
    _end(
        run_and_write(chosen, out, fault_module, full=full, workers=workers, limit_s=limit, say=_said),
        out / "severity.json",
    )


def _end(matrix: Matrix, path: Path) -> NoReturn:
    unseen = [outcome.fault for outcome in matrix.faults if not outcome.specific]
    typer.echo(f"{len(matrix.faults)} faults, {len(unseen)} not seen for what they are; {path}")
    raise typer.Exit(int(ExitCode.FALSIFIED if unseen or matrix.false_alarms else ExitCode.OPEN))


def _said(line: str) -> None:
    typer.echo(line, err=True)
