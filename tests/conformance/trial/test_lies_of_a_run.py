"""Ways in which a run of other suites ended green without a test; each is tried on ours, with real trials.

The numbers are those of the list in docs/lies.md.
"""

import ast
import functools
import os
import subprocess
import sys

import pytest
from trial_support import DRIVERS, ROOT, TIMEOUT_S, environment, falsify, record_in, write_manifest

from conformance.catalogue import load_catalogue
from conformance.observations import Failed
from conformance.protocol.failures import EngineRefused
from conformance.trial import inventory as inventories
from conformance.trial import runner
from conformance.trial.befallen import observe_failure
from conformance.verdicts import ExitCode, Rehearsed, Verdict

ROW = "F-QUAL-068"
WRITTEN = [row for row in load_catalogue().rows if row.written]


@pytest.fixture
def with_check(tmp_path, monkeypatch):
    """Puts a check of one row in the place of all checks: `with_check("pytest.skip('flaky')")`."""

    def write(body, *, before="", row=ROW):
        directory = tmp_path / "checks"
        directory.mkdir()
        source = "import pytest\n" + before
        for each in WRITTEN:
            source += f"def {each.function}(stand):\n    {body if each.id == row else 'pass'}\n"
        (directory / "test_all.py").write_text(source)
        found = functools.partial(inventories.inventory, directory=directory)
        monkeypatch.setattr(runner, "inventory", found)
        monkeypatch.setattr(runner, "CHECKS_DIRECTORY", directory)

    return write


def the(finished, row=ROW):
    return next(each for each in finished.record.rows if each.id == row)


@pytest.mark.parametrize(
    "body",
    [
        "return",
        "return True",
        "return 'CORROBORATED'",
        "raise NotImplementedError",
        "raise SystemExit(0)",
        "pytest.fail('no')",
        "assert False",
        "stand.observations.append(None)",
        "stand.equal('another', expected=1, observed=1)",
    ],
)
def test_lie_01_a_check_that_ends_without_its_observations_is_our_error(with_check, trial, tmp_path, body):
    with_check(body)

    finished = trial(write_manifest(tmp_path), ROW)

    assert the(finished).verdict is Verdict.ERROR
    assert finished.record.footer.exit_code is ExitCode.HARNESS


@pytest.mark.parametrize("body", ["pytest.skip('no such backend')", "pytest.importorskip('no_such_module')"])
def test_lie_02_a_skipped_check_is_not_counted_as_survived(with_check, trial, tmp_path, body):
    with_check(body)

    finished = trial(write_manifest(tmp_path), ROW)

    assert the(finished).verdict is Verdict.ERROR
    assert finished.record.footer.counts["CORROBORATED"] == 0


def test_lie_03_nothing_decided_is_no_success(trial, tmp_path):
    finished = trial(write_manifest(tmp_path, "offers_less"), "f_qual")

    assert {row.verdict for row in finished.record.rows} == {Verdict.UNTESTED}
    assert finished.record.footer.exit_code is ExitCode.UNDECIDED


@pytest.fixture(scope="module")
def hollow(tmp_path_factory):
    """A whole rehearsal of an engine that answers everything, and with nothing."""
    directory = tmp_path_factory.mktemp("hollow")
    manifest = write_manifest(directory, "hollow", command=["{python}", str(DRIVERS / "hollow.py")])
    done = falsify("--engine", manifest, "--out", directory / "out", "-n", 2)
    return done, record_in(directory / "out")


@pytest.mark.slow
def test_lie_04_an_engine_that_answers_with_nothing_survives_nothing(hollow):
    done, record = hollow

    survived = [row.id for row in record.rows if row.verdict in {Verdict.CORROBORATED, Verdict.WARNING}]
    rehearsed = [row.id for row in record.rows if row.rehearsed is Rehearsed.SURVIVED]
    assert survived == []
    assert rehearsed == ["F-CUDA-015"]  # no device listed where there is none: so far it is right
    assert done.returncode == record.footer.exit_code == ExitCode.FALSIFIED


@pytest.mark.slow
def test_lie_04_an_answer_with_nothing_in_it_is_the_engines_failure_and_never_ours(hollow):
    assert [row.id for row in hollow[1].rows if row.verdict is Verdict.ERROR] == []


@pytest.mark.parametrize("words", [("f_men",), ("f_mem", "f_men"), ("",)])
def test_lie_05_a_selector_that_matches_nothing_runs_nothing_and_is_no_success(tmp_path, words):
    chosen = [part for word in words for part in ("-k", word)]

    done = falsify(*chosen, "--engine", write_manifest(tmp_path), "--out", tmp_path / "out")

    assert done.returncode == ExitCode.USAGE
    assert not (tmp_path / "out").exists()


def test_lie_08_the_expected_rows_are_fixed_before_the_first_one_runs(with_check, trial, tmp_path):
    with_check("import os; os._exit(0)", row="F-MEM-029")

    finished = trial(write_manifest(tmp_path), "F-MEM-029", ROW, workers=2)

    assert len(finished.record.rows) == 100
    assert the(finished, "F-MEM-029").verdict is Verdict.ERROR
    assert finished.record.footer.exit_code is ExitCode.HARNESS


TEXTS = ["CUDA out of memory", "no CUDA device", "an illegal memory access was encountered", "not supported", "skipped"]


@pytest.mark.parametrize("text", TEXTS)
def test_lie_11_no_text_of_an_error_turns_a_failure_into_a_skip(stand, text):
    mine = stand(gpu=True)

    observe_failure(mine, EngineRefused("model.load", kind="not_supported", message=text, code=-32000))

    assert [type(each) for each in mine.observations] == [Failed]


def test_lie_11_an_engine_that_refuses_for_want_of_a_device_is_falsified(trial, tmp_path):
    finished = trial(write_manifest(tmp_path, "pleads_no_device"), ROW)

    assert the(finished).verdict is Verdict.FALSIFIED


@pytest.mark.parametrize("way", ["unknown_answer", "passes_everything", "no_answer", "two_answers"])
def test_lie_12_an_answer_of_another_form_is_no_answer(trial, tmp_path, way):
    command = ["{python}", str(DRIVERS / "unformed.py"), way]

    finished = trial(write_manifest(tmp_path, way, command=command), ROW)

    assert the(finished).verdict is Verdict.FALSIFIED
    assert "ProtocolViolated" in the(finished).reason


MARKS = ["@pytest.mark.skip(reason='flaky')", "@pytest.mark.xfail", "@pytest.mark.skipif(True, reason='x')"]


@pytest.mark.parametrize("mark", MARKS)
def test_lie_13_a_check_that_is_marked_to_be_skipped_or_to_fail_is_our_error(with_check, trial, tmp_path, mark):
    with_check("pass")
    path = tmp_path / "checks" / "test_all.py"
    path.write_text(path.read_text().replace("def test_f_qual_068", f"{mark}\ndef test_f_qual_068"))

    finished = trial(write_manifest(tmp_path), ROW)

    assert the(finished).verdict is Verdict.ERROR
    assert finished.record.footer.exit_code is ExitCode.HARNESS


def test_lie_13_no_check_is_marked_or_skips_itself():
    for path in sorted((ROOT / "checks").rglob("*.py")):
        tree = ast.parse(path.read_text())
        names = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & {"skip", "skipif", "xfail", "importorskip"}, path.name
        assert all(not node.decorator_list for node in tree.body if _is_check(node)), path.name


def _is_check(node):
    return isinstance(node, ast.FunctionDef) and node.name.startswith("test_")


@pytest.mark.parametrize("name", ["run", "smoke"])
def test_lie_16_a_command_that_found_something_never_ends_with_zero_whatever_becomes_of_its_output(tmp_path, name):
    manifest = write_manifest(tmp_path, "segfaults" if name == "run" else "dies_on_load")
    words = [name, "--engine", str(manifest)]
    words += ["-k", ROW, "--out", str(tmp_path / "out")] if name == "run" else []

    heard, unheard, unwritten = (_ended(words, target) for target in (os.devnull, None, "/dev/full"))

    assert heard == ExitCode.FALSIFIED
    assert {unheard, unwritten} <= {ExitCode.FALSIFIED, ExitCode.HARNESS}


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_lie_16_a_trial_whose_caller_closed_a_stream_ends_as_any_other(tmp_path, closed):
    words = ["run", "--engine", str(write_manifest(tmp_path, "segfaults")), "-k", ROW, "--out", str(tmp_path / "out")]
    command = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "conformance", *words]

    ended = subprocess.run(command, env=environment(), cwd=ROOT, timeout=TIMEOUT_S, check=False).returncode

    assert ended == ExitCode.FALSIFIED
    assert next(row for row in record_in(tmp_path / "out").rows if row.id == ROW).verdict is Verdict.FALSIFIED


def _ended(words, target):
    """The exit code with standard output into a file, or into a pipe that nobody reads."""
    if target is None:
        reader, output = os.pipe()
        os.close(reader)
    else:
        output = os.open(target, os.O_WRONLY)
    try:
        command = [sys.executable, "-m", "conformance", *words]
        return subprocess.run(
            command,
            stdout=output,
            stderr=subprocess.DEVNULL,
            env=environment(),
            cwd=ROOT,
            timeout=TIMEOUT_S,
            check=False,
        ).returncode
    finally:
        os.close(output)
