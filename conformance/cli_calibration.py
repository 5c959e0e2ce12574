"""The command line of calibration: what the rules of the timed rows do on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conformance.cli_support import or_usage, usage
from conformance.verdicts import ExitCode

PARTS = ("timed", "grown")


def add_to(app: typer.Typer) -> None:
    """Add `calibrate` to the command line."""
    app.command()(calibrate)


def calibrate(  # noqa: PLR0917  one parameter an option
    pool: Annotated[
        list[Path] | None,
        typer.Option(help="A pool of values; repeatable. The first one is grown. Default: pool.jsonl in --out."),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=0, help="Fresh processes in the first pool at the end; 0 measures nothing.")
    ] = 60,
    seconds: Annotated[float, typer.Option(min=0, help="Begin nothing after so long; a later call goes on.")] = 3600.0,
    part: Annotated[
        list[str] | None, typer.Option(help="Measure only this: timed or grown; repeatable. Default: both.")
    ] = None,
    side_by_side: Annotated[
        int, typer.Option(min=1, help="Processes at a time for series of growth, which are no timings.")
    ] = 1,
    replays: Annotated[int, typer.Option(min=0, help="Resamples a point of a curve; 0 replays nothing.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Of the order of doses and of the resamples.")] = 0,
    name: Annotated[str, typer.Option(help="What the result is called: NAME.json and NAME.html.")] = "calibration",
    out: Annotated[Path, typer.Option(help="Where the pool and the result go.")] = Path("calibration-run"),
) -> None:
    """Measure how often the rules of the timed rows cry wolf, and what they see, on this machine.

    The reference engine is slowed and made to leak by known doses; values of fresh processes make the pool, on whose
    resamples the judge is asked again, with limits where they bite.

    Exit codes: 0 done, 3 the pool is still smaller than asked for.

    Example:  falsify calibrate --pool pool.jsonl --seconds 230 && falsify render RECORD --calibration calibration.json
    """
    from conformance.calibration.running import (  # noqa: PLC0415  --help must be fast
        Request,
        collect_in,
        fewest,
        replay_and_write,
    )

    chosen = tuple(part or PARTS)
    if unknown := set(chosen) - set(PARTS):
        usage(f"--part {min(unknown)!r}: timed or grown")
    pools = pool or [out / "pool.jsonl"]
    or_usage(lambda: out.mkdir(parents=True, exist_ok=True))
    if processes:
        request = Request(
            pool=pools[0], processes=processes, seconds=seconds, parts=chosen, side_by_side=side_by_side, seed=seed
        )
        or_usage(lambda: collect_in(out, request, _said))
    if replays:
        found = or_usage(lambda: replay_and_write(pools, out, name, replays=replays, seed=seed, say=_said))
        typer.echo(f"{len(found.rates)} timed and {len(found.growth)} growth rows: {out / name}.html")
    missing = processes - or_usage(lambda: fewest(pools[0], chosen)) if processes else 0
    if missing > 0:
        typer.echo(f"{missing} of {processes} processes are missing still; call again", err=True)
    raise typer.Exit(int(ExitCode.UNDECIDED if missing > 0 else ExitCode.OPEN))


def _said(line: str) -> None:
    typer.echo(line, err=True)
