"""Commands that read stored records, one, two or thousands of them; none runs an engine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from conformance.cli_support import or_usage, usage
from conformance.verdicts import ExitCode

if TYPE_CHECKING:
    from conformance.comparison import Comparison
    from conformance.gate.decision import Decision
    from conformance.record import Record

RecordArgument = Annotated[
    Path, typer.Argument(metavar="RECORD", help="A record.jsonl, the directory that holds it, or a scorecard.")
]
BaselineOption = Annotated[Path | None, typer.Option("--baseline", help="An earlier record to compare with, by check.")]
GateOption = Annotated[
    Path | None, typer.Option("--gate", help="A gate file: what may be untested, known failures, required rows.")
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (gate, diff, rejudge, render, history, records):
        app.command()(command)


def gate(
    record: RecordArgument,
    baseline: BaselineOption = None,
    gate_file: GateOption = None,
    done: Annotated[
        Path | None, typer.Option(help="A done.json of `falsify done`: its gates must be met, too.")
    ] = None,
    annotate: Annotated[
        bool, typer.Option("--annotate", help="Also print GitHub workflow commands for the rows that shut the gate.")
    ] = False,
) -> None:
    """Decide whether a record may pass: one paragraph and one exit code; with `--done` the definition of done, too.

    Exit codes: 0 open, 1 falsified, 2 gate file or usage, 3 undecided, untested or partial, 4 harness error.

    Example:  falsify gate falsify-run/latest --gate gate.toml --baseline main.jsonl
    """
    from reports.gate import paragraph, workflow_commands  # noqa: PLC0415

    read = _record(record)
    compared = _compared(baseline, read)
    decision = _decided(read, gate_file, compared)
    typer.echo(paragraph(decision))
    if annotate:
        for line in workflow_commands(decision):
            typer.echo(line)
    definition = _done(done)
    raise typer.Exit(int(decision.code or definition))


def diff(
    baseline: Annotated[Path, typer.Argument(metavar="BASELINE", help="The earlier record.")], record: RecordArgument
) -> None:
    """Say what differs between two records, row by row; totals are never compared.

    Exit codes: 0 no row got worse, 1 a new failure, 3 a row is no longer shown or was removed.
    """
    from conformance.comparison import Change, compare  # noqa: PLC0415
    from reports.difference import comparison_text  # noqa: PLC0415

    compared = compare(_record(baseline), _record(record))
    typer.echo(comparison_text(compared), nl=False)
    lost = compared.having(Change.REMOVED) or compared.having(Change.NEWLY_UNTESTED)
    code = ExitCode.UNDECIDED if lost else ExitCode.OPEN
    raise typer.Exit(int(ExitCode.FALSIFIED if compared.having(Change.NEW_FAILURE) else code))


def rejudge(
    record: RecordArgument,
    thresholds: Annotated[Path | None, typer.Option(help="Other thresholds. Default: this harness's.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the rejudged record to this new file.")] = None,
) -> None:
    """Judge stored observations by other thresholds and show which verdicts change; nothing is measured again.

    Exit codes: those of the rejudged record.

    Example:  falsify rejudge falsify-run/latest --thresholds stricter.toml
    """
    from conformance.catalogue import load_catalogue  # noqa: PLC0415
    from conformance.record import write_record  # noqa: PLC0415
    from conformance.rejudging import changed  # noqa: PLC0415
    from conformance.rejudging import rejudge as judge_again  # noqa: PLC0415
    from conformance.thresholds import THRESHOLDS_PATH, load_thresholds  # noqa: PLC0415
    from reports.difference import rejudged_text  # noqa: PLC0415

    before = _record(record)
    limits = or_usage(lambda: load_thresholds(thresholds or THRESHOLDS_PATH))
    after = judge_again(before, load_catalogue(), limits)
    typer.echo(rejudged_text(before, after, changed(before, after)), nl=False)
    if out is not None:
        or_usage(lambda: write_record(after, out))
    raise typer.Exit(int(after.footer.exit_code if after.footer else ExitCode.HARNESS))


def render(  # noqa: PLR0917  one parameter an option
    record: RecordArgument,
    out: Annotated[Path | None, typer.Option(help="Where the reports go. Default: beside the record.")] = None,
    baseline: BaselineOption = None,
    gate_file: GateOption = None,
    history_of: Annotated[
        Path | None, typer.Option("--history", help="A directory of earlier records, for the dots beside each row.")
    ] = None,
    severity: Annotated[
        Path | None, typer.Option(help="What `falsify severity` left: which planted fault each check sees.")
    ] = None,
    done: Annotated[
        Path | None, typer.Option(help="A done.json: gates with command, value, threshold, verdict.")
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="What `falsify calibrate` left, a file a machine; repeatable: error rates of timed rows."),
    ] = None,
) -> None:
    """Make scorecard, JUnit, summary and badge of a stored record again.

    Example:  falsify render docs/results/h100 --severity docs/results/severity.json
    """
    from conformance.calibration.results import read_calibration  # noqa: PLC0415
    from conformance.record import record_file  # noqa: PLC0415
    from reports.history import read_history  # noqa: PLC0415
    from reports.kills import read_severity  # noqa: PLC0415
    from reports.tables import read_done  # noqa: PLC0415
    from reports.written import Attachments, write_reports  # noqa: PLC0415

    read = _record(record)
    source = record_file(record).parent
    target = out or source
    compared = _compared(baseline, read)
    attachments = Attachments(
        decision=_decided(read, gate_file, compared) if gate_file else None,
        comparison=compared,
        history=or_usage(lambda: read_history(history_of, before=read)) if history_of else (),
        severity=or_usage(lambda: read_severity(severity)) if severity else None,
        done=or_usage(lambda: read_done(done)) if done else None,
        calibrations=or_usage(lambda: tuple(map(read_calibration, calibration or ()))),
        source=record_file(record),
    )
    or_usage(lambda: target.mkdir(parents=True, exist_ok=True))
    typer.echo(or_usage(lambda: write_reports(read, target, attachments)))


def history(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory of records, at any depth.")],
    last: Annotated[int, typer.Option(min=1, help="How many trials to show.")] = 10,
    csv: Annotated[Path | None, typer.Option(help="Write one line a trial and row as CSV.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="The same as Parquet; needs the extra `parquet`.")] = None,
) -> None:
    """Show how each row fared in the last trials of a directory; rows that never changed are counted, not listed.

    Example:  falsify history falsify-run --csv history.csv
    """
    from reports.history import ParquetMissing, frame, history_text, read_history, write_parquet  # noqa: PLC0415

    records = or_usage(lambda: read_history(directory))
    if not records:
        usage(f"{directory}: no record lies there")
    table = frame(records)
    if csv is not None:
        or_usage(lambda: table.to_csv(csv, index=False))
    if parquet is not None:
        try:
            or_usage(lambda: write_parquet(table, parquet))
        except ParquetMissing as error:
            usage(str(error))
    typer.echo(history_text(records[-last:]), nl=False)


def records(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A directory of records, at any depth.")],
    by: Annotated[
        str | None, typer.Option(help="Compare groups: engine, version, model, machine, revision or thresholds.")
    ] = None,
    search: Annotated[str | None, typer.Option(metavar="TEXT", help="Rows with this in id, engine or reason.")] = None,
) -> None:
    """Summarise, compare or search thousands of records; each is read once into DIR/records.parquet.

    Needs the extra `parquet`. Exit codes: 4 where a record is broken and anything said of all is incomplete, else 0.

    Example:  falsify records falsify-run --by engine
    """
    from reports.history import ParquetMissing  # noqa: PLC0415
    from reports.index import update_index  # noqa: PLC0415
    from reports.many import GROUPS, compared_text, found_text, has_broken, summary_text  # noqa: PLC0415

    group = next((each for each in GROUPS if each == by), None)
    if by is not None and group is None:
        usage(f"--by {by!r}: one of {', '.join(GROUPS)}")
    if not directory.is_dir():
        usage(f"{directory}: not a directory")
    try:
        index = or_usage(lambda: update_index(directory))
    except ParquetMissing as error:
        usage(str(error))
    if search is not None:
        typer.echo(found_text(index, search), nl=False)
    if group is not None:
        typer.echo(compared_text(index, group), nl=False)
    if search is None and group is None:
        typer.echo(summary_text(index), nl=False)
    raise typer.Exit(int(ExitCode.HARNESS if has_broken(index) else ExitCode.OPEN))


def _done(path: Path | None) -> ExitCode:
    """What a definition of done asks of the gate; gates that are not met are told."""
    from conformance.done.gates import Standing, exit_code  # noqa: PLC0415
    from reports.tables import read_done  # noqa: PLC0415

    if path is None:
        return ExitCode.OPEN
    lines = or_usage(lambda: read_done(path))
    for line in lines:
        if line.verdict not in {Standing.MET, Standing.NOT_ASKED}:
            typer.echo(f"Definition of done: {line.name} {line.verdict}. {line.reason}".rstrip())
    return exit_code(lines)


def _record(path: Path) -> Record:
    from conformance.record import parse_record, read_record, record_file  # noqa: PLC0415
    from reports.embedded import record_within  # noqa: PLC0415

    if path.suffix == ".html":
        return or_usage(lambda: parse_record(record_within(path), path))
    return or_usage(lambda: read_record(record_file(path)))


def _compared(baseline: Path | None, record: Record) -> Comparison | None:
    from conformance.comparison import compare  # noqa: PLC0415

    return compare(_record(baseline), record) if baseline else None


def _decided(record: Record, gate_file: Path | None, comparison: Comparison | None) -> Decision:
    from conformance.catalogue import load_catalogue  # noqa: PLC0415
    from conformance.gate.applied import apply_gate  # noqa: PLC0415
    from conformance.gate.policy import Policy, load_policy  # noqa: PLC0415

    policy = or_usage(lambda: load_policy(gate_file, load_catalogue())) if gate_file else Policy()
    return apply_gate(record, policy, comparison)
