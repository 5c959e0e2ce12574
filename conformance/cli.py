"""The command line: `falsify run`, `falsify smoke`, `falsify golden`, `falsify replay`, `falsify corpus`, …"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from conformance.verdicts import ExitCode

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Put a GPU inference engine on trial: 100 severe tests, one record, one scorecard.\n\n"
    "Exit codes: 0 gate open, 1 falsified, 2 usage, 3 undecided or untested, 4 the harness itself failed.",
)


def main() -> None:
    """Entry point of `falsify`: expected errors are one line and exit code 2."""
    app(prog_name="falsify")


@app.command()
def run(
    engine: Annotated[str, typer.Option(help="Name of a shipped engine, or the path of a manifest.")] = "reference",
    model: Annotated[
        str | None,
        typer.Option(help="fixture, random, smollm2, or the path of a checkpoint. Default: the shipped one."),
    ] = None,
    select: Annotated[
        list[str] | None, typer.Option("-k", help="Rows whose id contains this (f_mem, F-MEM-029); may be repeated.")
    ] = None,
    section: Annotated[
        list[str] | None,
        typer.Option(help="build, cuda, mem, parse, dtype, load, qual, perf, err, int; may be repeated."),
    ] = None,
    seed: Annotated[str, typer.Option(help="A number, or `random` (also shuffles the rows). Always recorded.")] = "0",
    out: Annotated[Path, typer.Option(help="Where run directories go.")] = Path("falsify-run"),
    workers: Annotated[int, typer.Option("-n", min=1, help="Processes for untimed rows.")] = 2,
    profile: Annotated[str, typer.Option(help="Examples a fault class: default (30) or long (300).")] = "default",
    require_gpu: Annotated[bool, typer.Option("--require-gpu", help="Refuse to rehearse on the CPU.")] = False,
) -> None:
    """Run the trial of an engine and leave a record, a scorecard and JUnit XML.

    Without an NVIDIA device this is a rehearsal on the CPU: it shows nothing about the GPU, and says so.
    """
    from conformance.trial.runner import Options, prepare, run_trial  # noqa: PLC0415  --help must be fast
    from reports.terminal import progress, summary  # noqa: PLC0415

    options = Options(
        engine=engine,
        model=model,
        words=tuple(select or ()),
        sections=tuple(section or ()),
        seed=_seed(seed),
        shuffle=seed == "random",
        require_gpu=require_gpu,
        out=out,
        workers=workers,
        profile=_profile(profile),
        command=tuple(["falsify", *sys.argv[1:]]),
    )
    ready = _or_usage(lambda: prepare(options))
    with progress(ready.header) as listener:
        trial = run_trial(ready, workers, listener)
    _write_reports(trial.directory)
    summary(trial.record, trial.directory)
    raise typer.Exit(int(trial.record.footer.exit_code if trial.record.footer else ExitCode.HARNESS))
