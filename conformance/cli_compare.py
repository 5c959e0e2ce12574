"""`falsify compare`: records of several engines on one page. It runs no engine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from conformance.cli_support import or_usage


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(compare)


def compare(
    records: Annotated[
        list[Path], typer.Argument(metavar="RECORD…", help="Records of two or more engines, or their directories.")
    ],
    out: Annotated[Path, typer.Option(help="The page that is written.")] = Path("compare.html"),
    malformed: Annotated[
        Path | None,
        typer.Option("--malformations", help="Also a page of readers by malformation class, with the smallest files."),
    ] = None,
) -> None:
    """Put the records of several engines side by side on one self-contained page."""
    from conformance.catalogue import load_catalogue  # noqa: PLC0415
    from conformance.record import read_record, record_file  # noqa: PLC0415
    from reports.compare import comparison  # noqa: PLC0415
    from reports.malformations import malformations  # noqa: PLC0415

    read = or_usage(lambda: [read_record(record_file(path)) for path in records])
    or_usage(lambda: out.write_text(comparison(read, load_catalogue()), encoding="utf-8"))
    typer.echo(str(out))
    if malformed is not None:
        beside = [record_file(path).parent for path in records]
        page = malformations(list(zip(read, beside, strict=True)))
        or_usage(lambda: malformed.write_text(page, encoding="utf-8"))
        typer.echo(str(malformed))
