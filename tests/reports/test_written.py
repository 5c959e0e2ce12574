"""The reports of a trial lie beside its record, and show only evidence that is what the record says."""

import hashlib
from pathlib import Path

import pytest
import sample_records as samples

from conformance.record import Evidence, RowResult
from conformance.verdicts import Verdict
from reports.written import write_reports

CONTENT = b"the driver died <here>"


def written(directory: Path, path: str, digest: str = hashlib.sha256(CONTENT).hexdigest()) -> str:
    evidence = [Evidence(path, digest, len(CONTENT), media_type="text/plain")]
    row = RowResult("F-BUILD-001", Verdict.FALSIFIED, reason="it died", evidence=evidence)
    record = samples.survived_record()
    record = samples.finished(record.header, [row, *record.rows[1:]])
    return write_reports(record, directory).read_text()


def test_every_report_is_written(tmp_path):
    write_reports(samples.mixed_record(), tmp_path)

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"scorecard.html", "junit.xml", "summary.md", "badge.json", "badge.svg"}


def test_the_hash_is_that_of_the_record_file(tmp_path):
    record = samples.survived_record()
    (tmp_path / "record.jsonl").write_bytes(samples.encode_record(record))

    page = write_reports(record, tmp_path).read_text()

    assert hashlib.sha256((tmp_path / "record.jsonl").read_bytes()).hexdigest() in page


def test_evidence_is_shown(tmp_path):
    (tmp_path / "log.txt").write_bytes(CONTENT)

    assert "the driver died &lt;here&gt;" in written(tmp_path, "log.txt")


def test_evidence_that_was_changed_since_is_not_shown(tmp_path):
    (tmp_path / "log.txt").write_bytes(CONTENT)

    assert "the driver died" not in written(tmp_path, "log.txt", "0" * 64)


@pytest.mark.parametrize("path", ["../secret.txt", "link.txt", "a\x00b", "x" * 5_000, "."])
def test_evidence_outside_the_run_directory_is_not_read(tmp_path, path):
    (tmp_path / "secret.txt").write_bytes(CONTENT)
    run = tmp_path / "run"
    run.mkdir()
    (run / "link.txt").symlink_to(tmp_path / "secret.txt")

    assert "the driver died" not in written(run, path)
    assert "the driver died" not in written(run, str(tmp_path / "secret.txt"))
