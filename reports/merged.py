"""Shards → a merged run directory with its reports, or an error and no directory at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from conformance.catalogue import load_catalogue
from conformance.record import RowResult
from conformance.trial.merging import merge, read_shards
from conformance.trial.runner import new_run_directory
from conformance.verdicts import ExitCode
from reports.terminal import make_console, print_summary
from reports.written import write_reports


class _Silent:
    """Nobody watches a merge: it takes no time."""

    def row_started(self, row_id: str) -> None:
        """Nothing."""

    def row_finished(self, result: RowResult) -> None:
        """Nothing."""


def write_merged(paths: Sequence[Path], out: Path, command: Sequence[str]) -> ExitCode:
    """Merge, write the reports, print the summary; the merged trial's exit code.

    Raises:
        BrokenShard: nothing was merged.
        OSError: the directory cannot be written.
    """
    shards = read_shards(paths)
    directory = new_run_directory(out)
    try:
        record = merge(shards, directory, _Silent(), command)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    scorecard = write_reports(record, directory)
    print_summary(record, load_catalogue(), make_console(), scorecard)
    return record.footer.exit_code if record.footer else ExitCode.HARNESS
