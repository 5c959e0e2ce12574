"""Checks and rows are one to one, or no trial begins."""

import pytest

from conformance.catalogue import load_catalogue
from conformance.trial.inventory import CatalogueMismatch, inventory

WRITTEN = [row for row in load_catalogue().rows if row.written]
UNWRITTEN = [row for row in load_catalogue().rows if not row.written]


@pytest.fixture
def checks(tmp_path):
    """All checks that the catalogue demands, empty; with changes."""

    def write(*, without="", more="", file="test_more.py"):
        source = [f"def {row.function}(stand): ...\n" for row in WRITTEN if row.id != without]
        (tmp_path / "test_all.py").write_text("".join(source))
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(more)
        return tmp_path

    return write


def problems(directory):
    with pytest.raises(CatalogueMismatch) as caught:
        inventory(load_catalogue(), directory)
    assert str(caught.value).startswith("checks and catalogue disagree: ")
    return caught.value.problems


def test_the_real_checks_and_the_catalogue_agree():
    found = inventory(load_catalogue())

    assert set(found) == {row.id for row in WRITTEN}
    assert all(place.file.startswith("test_") and place.line > 0 for place in found.values())


def test_empty_checks_for_all_written_rows_agree(checks):
    assert set(inventory(load_catalogue(), checks())) == {row.id for row in WRITTEN}


def test_a_row_without_its_check(checks):
    missing = WRITTEN[3].id

    assert problems(checks(without=missing)) == (f"{missing} lists observations but has no check",)


@pytest.mark.parametrize(
    "name", ["test_f_mem_999", "test_mem_029", "test_f_mem_29", "testing", "test_f_mem_029_twice", "test_F_MEM_029"]
)
def test_a_check_without_a_row(checks, name):
    assert problems(checks(more=f"def {name}(stand): ...\n")) == (f"test_more.py:1 {name} has no row",)


@pytest.mark.parametrize("file", ["test_more.py", "deeper/test_more.py"])
@pytest.mark.parametrize("define", ["def", "async def"])
def test_two_checks_for_one_row(checks, file, define):
    twice = WRITTEN[0]

    (problem,) = problems(checks(more=f"\n{define} {twice.function}(stand): ...\n", file=file))

    assert problem.endswith(f"is a second check for {twice.id}")


def test_a_misnamed_check_leaves_a_row_without_one_and_is_named_itself(checks):
    row = WRITTEN[0]

    assert problems(checks(without=row.id, more="def test_f_bulid_001(stand): ...\n")) == (
        "test_more.py:1 test_f_bulid_001 has no row",
        f"{row.id} lists observations but has no check",
    )


def test_a_method_is_no_check(checks):
    assert problems(checks(more="class TestX:\n    def test_it(self): ...\n"))


@pytest.mark.skipif(not UNWRITTEN, reason="every row is written")
def test_a_check_whose_row_lists_nothing_to_observe(checks):
    row = UNWRITTEN[0]

    assert problems(checks(more=f"def {row.function}(stand): ...\n")) == (
        f"{row.id} has a check but lists no observations",
    )


@pytest.mark.parametrize("source", ["def test_x(:\n", "\0"])
def test_a_file_that_does_not_parse(checks, source):
    (problem,) = problems(checks(more=source))

    assert problem.startswith("test_more.py cannot be read: ")
