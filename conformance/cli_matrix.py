"""The command `falsify matrix`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from conformance.cli_support import end
from conformance.verdicts import ExitCode

if TYPE_CHECKING:
    from conformance.matrix.cells import Cell, Matrix
    from conformance.matrix.record import MatrixRecord
    from conformance.matrix.trial import Request


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(matrix)


def matrix(  # noqa: PLR0917  one parameter an option
    file: Annotated[Path, typer.Argument(metavar="MATRIX.toml", help="engines, models and devices.")],
    out: Annotated[Path, typer.Option(help="Its directory; the same one resumes it.")] = Path("falsify-matrix"),
    workers: Annotated[int, typer.Option("-n", "--workers", min=1, help="Processes a cell for untimed rows.")] = 2,
    places: Annotated[int, typer.Option(min=1, help="Cells at one time where no GPU is (each GPU is one place).")] = 1,
    cell: Annotated[
        int | None, typer.Option(min=1, help="Try only the cell of this number, as one task of a cluster's job does.")
    ] = None,
    collect: Annotated[bool, typer.Option("--collect", help="Try nothing: join what the cells left.")] = False,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Try the cells on a Ray cluster (auto, local, HOST:PORT); extra `ray`."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Try cells that are done once more.")] = False,
) -> None:
    """Try every engine with every model on every device; leave one record and one comparison page.

    A cell that is done is not tried again while engine, sources, model, goldens, rows, seed, catalogue, thresholds and
    machine are the same. Exit code: the worst of all cells; a cell without a whole record is 4.
    """
    from conformance.matrix.cells import BrokenMatrix, load_matrix  # noqa: PLC0415
    from conformance.matrix.devices import NoSuchDevice  # noqa: PLC0415
    from conformance.matrix.ray_pool import NoCluster, RayMissing  # noqa: PLC0415
    from conformance.matrix.record import collect as collected  # noqa: PLC0415
    from conformance.matrix.trial import Request  # noqa: PLC0415
    from conformance.probes.nvml import DeviceUnusable  # noqa: PLC0415

    def request(each: Cell) -> Request:
        return Request(each, read.table, str(out.absolute()), workers, again)

    try:
        read = load_matrix(file)
        if cell is not None:
            raise typer.Exit(_one(read, cell, request))
        causes = {} if collect else _all(read, places, request, ray)
        record = collected(read, out, causes)
        _write(record, out)
    except (BrokenMatrix, NoSuchDevice, RayMissing, NoCluster) as error:
        end(str(error), ExitCode.USAGE)
    except DeviceUnusable as error:
        end(str(error), ExitCode.HARNESS)
    except OSError as error:
        end(f"{error.filename or out}: {error.strerror}", ExitCode.HARNESS)
    raise typer.Exit(int(record.exit_code))


def _one(read: Matrix, number: int, request: Callable[[Cell], Request]) -> int:
    from conformance.matrix.trial import answer  # noqa: PLC0415

    try:
        cell = read.numbered(number)
    except IndexError:
        end(f"--cell {number}: the matrix has {len(read.cells)} cells", ExitCode.USAGE)
    return answer(request(cell))


def _all(read: Matrix, places: int, request: Callable[[Cell], Request], ray: str | None) -> dict[str, str]:
    """Try all cells; why those that have no whole record have none."""
    from conformance.matrix.devices import check_served, places_of_host  # noqa: PLC0415
    from conformance.matrix.pool import Pool  # noqa: PLC0415
    from conformance.matrix.progress import Tally  # noqa: PLC0415
    from conformance.matrix.ray_pool import RayPool  # noqa: PLC0415
    from conformance.trial.signals import STOPPING  # noqa: PLC0415
    from reports.matrix_progress import MatrixProgress  # noqa: PLC0415
    from reports.terminal import make_console  # noqa: PLC0415

    here = [] if ray else places_of_host(places)
    if not ray:
        check_served(read.cells, here)
    tally = Tally(read.cells, len(here))
    with MatrixProgress(tally, make_console()) as progress:
        pool = RayPool(ray, request, progress.hear) if ray else Pool(here, request, progress.hear)

        def stop(number: int, frame: FrameType | None) -> None:
            del number, frame
            pool.stop()

        before = {each: signal.signal(each, stop) for each in STOPPING}
        try:
            pool.run(read.cells)
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)
    return {name: event.cause for name, event in tally.done.items() if event.cause}


def _write(record: MatrixRecord, out: Path) -> None:
    from conformance.catalogue import load_catalogue  # noqa: PLC0415
    from conformance.matrix.record import write_matrix  # noqa: PLC0415
    from reports.matrix import PAGE, render_matrix  # noqa: PLC0415

    out.mkdir(parents=True, exist_ok=True)
    (out / PAGE).write_text(render_matrix(record, load_catalogue()), encoding="utf-8")
    path = write_matrix(record, out)
    lost = [cell for cell in record.cells if cell.cause]
    for cell in lost[:20]:
        typer.echo(f"{cell.name}: {cell.cause}", err=True)
    typer.echo(f"{len(record.cells) - len(lost)} of {len(record.cells)} cells have a record: {path}, {out / PAGE}")
