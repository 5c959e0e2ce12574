"""Numbers that gates read: from records, from the project's own texts, from the mutation run, from the sanitizer."""

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import msgspec
import pytest

from conformance.documentation.pages import ROOT
from conformance.done.__main__ import main
from conformance.done.records import rate, rows_not_passed
from conformance.done.sources import entries, gpu_examples, markers
from conformance.observations import Sample
from conformance.record import read_record, write_record
from conformance.verdicts import Verdict

H100 = ROOT / "docs" / "results" / "h100" / "record.jsonl"


def changed(record, row_id, **fields):
    rows = [msgspec.structs.replace(row, **fields) if row.id == row_id else row for row in record.rows]
    return msgspec.structs.replace(record, rows=rows)


def test_rows_that_neither_survive_nor_warn_are_counted_and_named():
    record = changed(read_record(H100), "F-MEM-029", verdict=Verdict.FALSIFIED)
    assert "F-MEM-029 FALSIFIED" in rows_not_passed(record)
    assert rows_not_passed(record, ["F-MEM-029", "F-X-999"]) == ["F-MEM-029 FALSIFIED", "F-X-999 absent"]
    assert rows_not_passed(changed(record, "F-MEM-029", verdict=Verdict.WARNING), ["F-MEM-029"]) == []


def test_no_rate_stands_without_its_row():
    values = Sample(name="rate", values=[210.0, 190.0, 200.0], unit="tok/s")
    record = changed(read_record(H100), "F-PERF-083", verdict=Verdict.CORROBORATED, observations=[values])
    assert rate(record, "F-PERF-083") == 200
    assert rate(changed(record, "F-PERF-083", verdict=Verdict.INCONCLUSIVE), "F-PERF-083") is None
    assert rate(changed(record, "F-PERF-083", observations=[]), "F-PERF-083") is None
    assert rate(record, "F-X-999") is None


def test_a_rehearsal_shows_nothing_of_a_gpu(capsys):
    with pytest.raises(SystemExit, match="rehearsal"):
        main(["rows", str(ROOT / "docs" / "results" / "rehearsal" / "record.jsonl")])
    main(["rows", str(H100), "F-INT-096"])
    assert capsys.readouterr().out.startswith("rows not passed: ")


def test_a_rate_is_printed_with_where_it_comes_from(capsys, tmp_path):
    main(["rate", str(H100), "F-PERF-083"])
    write_record(changed(read_record(H100), "F-PERF-083", observations=[]), tmp_path / "record.jsonl")
    main(["rate", str(tmp_path / "record.jsonl"), "F-PERF-083"])
    shown, refused = capsys.readouterr().out.splitlines()
    assert "tok/s; " in shown
    assert "record.jsonl of 20" in shown
    assert "no CORROBORATED sample of F-PERF-083" in refused


def test_markers_are_found_in_comments_and_not_in_text(tmp_path):
    later, broken, crude = "TO" + "DO", "FIX" + "ME", "HA" + "CK"  # in pieces: this file has no marker of its own
    (tmp_path / "conformance").mkdir()
    (tmp_path / "conformance" / "a.py").write_text(f'x = "# {later}: text"\ny = 1  # {broken} later\n')
    (tmp_path / "conformance" / "b.c").write_text(f"/* {crude} */\nint todos;\n")
    (tmp_path / "noxfile.py").write_text(f"# {later}\n")
    (tmp_path / "vendor").mkdir()
    (tmp_path / "vendor" / "c.py").write_text(f"# {later}\n")
    assert list(markers(tmp_path)) == [
        f"conformance/a.py:2: # {broken} later", f"conformance/b.c:1: /* {crude} */", f"noxfile.py:1: # {later}",
    ]  # fmt: skip


def test_examples_ask_for_the_gpu_in_a_shell_block(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("`apr --gpu`\n\n```sh\napr chat x --gpu\napr run x --no-gpu\n```\n\n```text\napr --gpu\n```\n")
    assert list(gpu_examples([tmp_path])) == [f"{page}: apr chat x --gpu"]
    assert list(gpu_examples([page])) == [f"{page}: apr chat x --gpu"]


@pytest.mark.parametrize(
    ("heading", "count"), [("## Unreleased", 2), ("## [0.1.0] - 2026-11-24", 2), ("## 0.0.9", 0), ("", 0)]
)
def test_entries_are_those_of_this_version(heading, count):
    text = f"# Changelog\n\n{heading}\n\n### Added\n\n- One,\n  still one.\n- Two.\n\n## 0.0.1\n\n- Old.\n"
    assert len(entries(text, "0.1.0")) == count


def test_the_printed_lines_of_texts(capsys):
    main(["entries", str(ROOT / "CHANGELOG.md")])
    main(["examples", str(ROOT / "docs")])
    main(["markers", str(ROOT)])
    told = capsys.readouterr().out
    assert "\n- " in told
    assert "index.md: apr chat" in told


# --- scripts beside the packages --------------------------------------------------------------------------


def script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_mutation_score_counts_only_for_modules_as_they_are():
    mutation = script(ROOT / "tests" / "mutation" / "run.py")
    known = {
        module: {
            "sha256": mutation.sha256_of(module), "mutants": 15, "not_tried": 0,
            "killed": 9, "survived": 1, "broken": 5,
        }
        for module in mutation.MODULES
    }  # fmt: skip
    assert mutation.score(known) == "mutation score 90.00 % of 80 mutants in 8 modules; 40 did not run"
    first, second = list(known)[:2]
    stale = known | {first: known[first] | {"sha256": "other"}, second: known[second] | {"not_tried": 1}}
    assert mutation.score(stale) == f"not measured: not tried to the end, or changed since: {first}, {second}"
    assert "not measured" in mutation.score({})


def test_a_part_of_the_mutants_is_not_taken_for_all_of_them(tmp_path):
    mutation = script(ROOT / "tests" / "mutation" / "run.py")
    module = next(iter(mutation.MODULES))
    mutants = [SimpleNamespace(module=module)] * 3
    tried = [{"module": module, "outcome": mutation.KILLED, "line": 1, "operator": "x", "change": "y"}]
    mutation.plan(tmp_path, mutants)
    planned = json.loads((tmp_path / mutation.PLANNED).read_text())[module]
    found = mutation.summary_of(tried, module, {}, planned)
    assert (found["mutants"], found["not_tried"], found["sha256"]) == (1, 2, mutation.sha256_of(module))
    assert mutation.summary_of(tried, module, {}, {})["not_tried"] is None
    assert "not measured" in mutation.score(dict.fromkeys(mutation.MODULES, found))


def leak(nbytes, frame):
    return f"========= Leaked {nbytes} bytes at 0x7f\n=========     Host Frame: {frame} [0x1]\n"


def read_memcheck(directory, empty, generation):
    directory.mkdir(exist_ok=True)
    for name, text in (("empty.txt", empty), ("generation.txt", generation)):
        if text is not None:
            (directory / name).write_text(text)
    command = [sys.executable, "benchmarks/memcheck.py", str(directory), "--read"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def test_the_sanitizers_record_is_read_again(tmp_path):
    base = leak("512", "cuInit") + "========= ERROR SUMMARY: 1 error\n"
    same = read_memcheck(tmp_path / "same", base, base)
    assert (same.returncode, same.stdout.splitlines()[-1]) == (0, "beyond an empty program: 0")
    more = leak("512", "cuInit") + leak("64", "ours") + "========= ERROR SUMMARY: 5 errors\n"
    found = read_memcheck(tmp_path / "more", base, more)
    assert found.returncode == 1
    assert "beyond an empty program: 4" in found.stdout
    cut = read_memcheck(tmp_path / "cut", base, leak("512", "cuInit"))
    assert "beyond" not in cut.stdout
    assert "no record of a run on a GPU" in read_memcheck(tmp_path / "none", base, None).stderr


def test_what_failing_tests_covered_says_nothing_and_what_is_kept_holds_for_these_sources_alone(
    tmp_path, monkeypatch, capsys
):
    run = script(ROOT / "tests" / "coverage" / "run.py")
    kept = tmp_path / "kept.json"
    asked = []

    def coverage(*words, data):
        asked.append(words[0])
        if words[0] == "json":
            files = {"a.py": {"summary": {"missing_lines": 3}}}
            totals = {"percent_covered": 95.25, "num_statements": 7, "num_branches": 2}
            (data.parent / "coverage.json").write_text(json.dumps({"totals": totals, "files": files}))
        return int(words[0] == "run" and "failing" in words)

    monkeypatch.setattr(run, "coverage", coverage)
    monkeypatch.setattr(run, "KEPT", kept)
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "out"), "failing"])
    with pytest.raises(SystemExit, match="the tests ended with 1"):
        run.main()
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "out"), "-k", "part"])
    run.main()
    assert not kept.exists(), "a part of the tests is not the coverage of these sources"
    monkeypatch.setattr(sys, "argv", ["run.py", str(tmp_path / "out")])
    run.main()
    asked.clear()
    run.main()
    assert asked == []
    assert json.loads(kept.read_text())["lacking"] == {"a.py": 3}
    monkeypatch.setattr(run, "sources_sha256", lambda: "other")
    run.main()
    assert asked == ["run", "combine", "json"]
    assert set(capsys.readouterr().out.splitlines()) == {"branch coverage 95.25 % of 7 statements"}
