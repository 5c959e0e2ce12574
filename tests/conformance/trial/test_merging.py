"""Shards make the whole trial's record, or an error that names the shard: nothing in between."""

import json
import subprocess
import sys

import pytest
from shard_support import ENVIRONMENT, ROWS, WHOLE, Nobody, write_shard
from trial_support import DRIVERS, ROOT, environment, falsify, write_manifest

from conformance.manifest import load_manifest
from conformance.record import EngineIdentity, ModelIdentity, read_record
from conformance.trial.inputs import inputs_of
from conformance.trial.merging import BrokenShard, merge, read_shards
from conformance.trial.sharding import NotAShard, Part, parse_part
from conformance.verdicts import ExitCode, Verdict


def merged(shards, out):
    out.mkdir()
    return merge(read_shards(shards), out, Nobody(), ("falsify", "merge"))


def run_merge(*words, out):
    command = [sys.executable, "-m", "conformance", "merge", *map(str, words), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=60, check=False)


@pytest.mark.parametrize("of", [1, 2, 3, 8])
def test_shards_hold_every_row_once(of):
    parts = [Part(index, of).rows(ROWS) for index in range(1, of + 1)]
    assert sorted(row for part in parts for row in part) == ROWS


@pytest.mark.parametrize(
    "text", ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b", "1 /2", "01/2", "1/99999", "\uff11/\uff12"]
)
def test_what_is_no_part_is_refused(text):
    with pytest.raises(NotAShard):
        parse_part(text)


def test_an_empty_part_is_refused():
    with pytest.raises(NotAShard, match="only 8 rows"):
        Part(9, 9).rows(ROWS)


def test_the_merged_record_is_the_whole_trials(tmp_path):
    shards = [write_shard(tmp_path, index, 3, evidence=f"of {index}") for index in (2, 3, 1)]
    record = merged(shards, tmp_path / "merged")
    assert record == read_record(tmp_path / "merged" / "record.jsonl")
    assert record.header.selected == ROWS
    assert record.header.shard is None
    assert [each.index for each in record.header.merged] == [1, 2, 3]
    assert record.footer.exit_code is ExitCode.OPEN
    assert [row.verdict for row in record.rows] == [Verdict.CORROBORATED] * len(ROWS)
    for row in record.rows:
        assert (tmp_path / "merged" / row.evidence[0].path).is_file()


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Verdict.FALSIFIED, ExitCode.FALSIFIED),
        (Verdict.ERROR, ExitCode.HARNESS),
        (Verdict.INCONCLUSIVE, ExitCode.UNDECIDED),
        (Verdict.WARNING, ExitCode.OPEN),
    ],
)
def test_one_bad_row_in_any_shard_decides(tmp_path, verdict, code):
    for index in (1, 2):
        out = tmp_path / str(index)
        bad = Part(index, 2).rows(ROWS)[-1]
        shards = [write_shard(out, each, 2, verdicts={bad: verdict}) for each in (1, 2)]
        assert merged(shards, out / "merged").footer.exit_code is code


def test_merging_of_a_selection_leaves_the_rest_not_selected(tmp_path):
    record = merged([write_shard(tmp_path, each, 2, whole=ROWS[:4]) for each in (1, 2)], tmp_path / "merged")
    assert record.header.selected == ROWS[:4]
    assert {row.reason for row in record.rows[4:]} == {"not selected"}


def test_a_missing_shard_is_named(tmp_path):
    with pytest.raises(BrokenShard, match="shard 2/4, 3/4: missing"):
        read_shards([write_shard(tmp_path, each, 4) for each in (1, 4)])
    with pytest.raises(BrokenShard, match="missing"):
        read_shards([])


def test_a_directory_without_a_record_is_named(tmp_path):
    with pytest.raises(BrokenShard, match="nowhere.*No such file"):
        read_shards([tmp_path / "nowhere"])


def test_the_same_shard_twice_is_named(tmp_path):
    shards = [write_shard(tmp_path, each, 2) for each in (1, 2)]
    with pytest.raises(BrokenShard, match="shard 2/2 .*again.*duplicated"):
        read_shards([*shards, write_shard(tmp_path / "again", 2, 2)])
    with pytest.raises(BrokenShard, match="duplicated"):
        read_shards([shards[0], shards[0]])


@pytest.mark.parametrize("cut", [1, 2, 300, 2000, -1])
def test_a_shard_cut_anywhere_is_named(tmp_path, cut):
    shards = [write_shard(tmp_path, each, 2) for each in (1, 2)]
    path = shards[1] / "record.jsonl"
    path.write_bytes(path.read_bytes()[:-cut] if cut > 0 else b"")
    with pytest.raises(BrokenShard, match="shard-2-of-2"):
        read_shards(shards)


def test_a_shard_without_one_of_its_lines_is_named(tmp_path):
    shards = [write_shard(tmp_path, each, 2) for each in (1, 2)]
    path = shards[1] / "record.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    del lines[2]
    path.write_text("".join(lines))
    with pytest.raises(BrokenShard, match="shard-2-of-2"):
        read_shards(shards)
    footer = json.loads(lines[-1])
    footer["counts"]["CORROBORATED"] -= 1
    footer["counts"]["UNTESTED"] += 1
    path.write_text("".join([*lines[:-1], json.dumps(footer), "\n"]))
    with pytest.raises(BrokenShard, match="shard 2/2 .*truncated: F-MEM-024 has no line"):
        read_shards(shards)


@pytest.mark.parametrize("ended", ["interrupted", "broken"])
def test_a_shard_that_did_not_complete_is_named(tmp_path, ended):
    with pytest.raises(BrokenShard, match=f"shard 1/2 .*{ended}"):
        read_shards([write_shard(tmp_path, 1, 2, ended=ended), write_shard(tmp_path, 2, 2)])


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("thresholds_sha256", {"thresholds_sha256": "0" * 64}),
        ("catalogue_sha256", {"catalogue_sha256": "0" * 64}),
        ("engine", {"engine": EngineIdentity("parrot", manifest_sha256="0" * 64)}),
        ("engine", {"engine": EngineIdentity("parrot", version="2", manifest_sha256="e" * 64)}),
        ("model", {"model": ModelIdentity("fixture", "fixture", "0" * 64)}),
        ("rehearsal", {"rehearsal": True}),
        ("seed", {"seed": 1}),
        ("revision", {"revision": "git:2"}),
        ("profile", {"profile": "long"}),
        ("rows", {"rows": [*ROWS, "F-MEM-099"]}),
        ("selection", {"whole": [ROWS[0], ROWS[1], ROWS[2]]}),
        ("inputs", {"inputs": "0" * 64}),
        ("libraries", {"environment": ENVIRONMENT | {"libraries": {"torch": "2.12"}}}),
        ("gpus", {"environment": ENVIRONMENT | {"gpus": [{"name": "another", "driver": "1"}]}}),
    ],
)
def test_a_shard_of_another_trial_is_named_with_what_differs(tmp_path, field, changes):
    shards = [write_shard(tmp_path, 1, 2), write_shard(tmp_path, 2, 2, **changes)]
    with pytest.raises(BrokenShard, match=rf"shard 2/2 .*{field}"):
        read_shards(shards)


def test_another_division_is_named(tmp_path):
    with pytest.raises(BrokenShard, match="shard 2/3 .*another division"):
        read_shards([write_shard(tmp_path, 1, 2), write_shard(tmp_path, 2, 3)])


def test_rows_of_another_part_are_named(tmp_path):
    shards = [write_shard(tmp_path, 1, 2), write_shard(tmp_path, 2, 2, selected=ROWS[::2])]
    with pytest.raises(BrokenShard, match="does not hold the rows of this part"):
        read_shards(shards)


def test_a_whole_record_is_no_shard(tmp_path):
    with pytest.raises(BrokenShard, match="without --shard"):
        read_shards([write_shard(tmp_path, 1, 1, shard=None)])


def test_an_exit_code_that_the_rows_do_not_amount_to_is_named(tmp_path):
    shards = [write_shard(tmp_path, each, 2, verdicts={ROWS[1]: Verdict.FALSIFIED}) for each in (1, 2)]
    path = shards[1] / "record.jsonl"
    path.write_text(path.read_text().replace('"exit_code":1', '"exit_code":0'))
    with pytest.raises(BrokenShard, match="shard 2/2 .*exit code"):
        read_shards(shards)


def test_changed_or_lost_evidence_is_named(tmp_path):
    shards = [write_shard(tmp_path, each, 2, evidence="as it was") for each in (1, 2)]
    kept = shards[1] / "evidence" / ROWS[1] / "said.txt"
    kept.write_text("as we wish")
    with pytest.raises(BrokenShard, match="shard 2/2 .*not what the record says"):
        read_shards(shards)
    kept.unlink()
    with pytest.raises(BrokenShard, match="shard 2/2 .*No such file"):
        read_shards(shards)


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../shard-1-of-2/record.jsonl", "evidence/../record.jsonl", "evidence/link"]
)
def test_evidence_outside_the_run_directory_is_not_taken(tmp_path, path):
    shards = [write_shard(tmp_path, each, 2, evidence="x") for each in (1, 2)]
    (shards[1] / "evidence" / "link").symlink_to("/etc/hostname")
    file = shards[1] / "record.jsonl"
    file.write_text(file.read_text().replace(f"evidence/{ROWS[1]}/said.txt", path))
    with pytest.raises(BrokenShard, match="shard 2/2 .*outside"):
        read_shards(shards)


def test_the_command_ends_with_4_and_leaves_nothing(tmp_path):
    out = tmp_path / "out"
    done = run_merge(write_shard(tmp_path, 1, 2), out=out)
    assert done.returncode == ExitCode.HARNESS
    assert done.stderr == "falsify: shard 2/2: missing\n"
    assert not out.exists()


def test_the_command_writes_reports_and_ends_with_the_trials_code(tmp_path):
    shards = [write_shard(tmp_path, each, 2, verdicts={ROWS[1]: Verdict.FALSIFIED}) for each in (1, 2)]
    done = run_merge(*shards, out=tmp_path / "out")
    assert done.returncode == ExitCode.FALSIFIED, done.stderr
    assert {"record.jsonl", "scorecard.html", "junit.xml"} <= {f.name for f in (tmp_path / "out" / "latest").iterdir()}


def test_a_rebuilt_engine_is_another_input(tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_bytes((DRIVERS / "parrot.py").read_bytes())
    manifest = load_manifest(str(write_manifest(tmp_path, command=["{python}", str(driver)])))
    before = inputs_of(WHOLE, manifest, None)
    assert inputs_of(WHOLE, manifest, None).sha256 == before.sha256
    driver.write_text(driver.read_text() + "# rebuilt\n")
    assert inputs_of(WHOLE, manifest, None).sha256 != before.sha256


@pytest.mark.slow
def test_two_shards_of_a_real_trial_say_what_the_whole_trial_says(tmp_path):
    engine = write_manifest(tmp_path)
    words = ("--engine", engine, "--section", "parse", "--section", "err", "-n", "1")
    whole = falsify(*words, "--out", tmp_path / "whole")
    for index in (1, 2):
        falsify(*words, "--out", tmp_path / str(index), "--shard", f"{index}/2")
    done = run_merge(tmp_path / "1" / "latest", tmp_path / "2" / "latest", out=tmp_path / "merged")
    expected = read_record(tmp_path / "whole" / "latest" / "record.jsonl")
    record = read_record(tmp_path / "merged" / "latest" / "record.jsonl")
    assert done.returncode == whole.returncode == expected.footer.exit_code, done.stderr
    assert [(row.id, row.verdict, row.seed) for row in record.rows] == [
        (row.id, row.verdict, row.seed) for row in expected.rows
    ]
    assert falsify(*words, "--shard", "3/2", "--out", tmp_path / "x", cwd=ROOT).returncode == ExitCode.USAGE
