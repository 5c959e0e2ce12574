import msgspec
import pytest

from conformance.catalogue import load_catalogue
from conformance.corpus.golden_cases import Expectation, GoldenPrompt, has_word, load_cases


@pytest.mark.parametrize("text", ["4", "2+2=4", "The answer is 4.", "4, of course", "it is (4)"])
def test_number_found_as_a_whole_word(text):
    assert has_word(text, "4")


@pytest.mark.parametrize("text", ["14", "42", "4.5", "3.4", "-4", "\u22124", "4th", "four", "1,4", "v4"])
def test_number_inside_something_else_is_not_found(text):
    assert not has_word(text, "4")


def test_words_do_not_match_inside_words():
    assert not has_word("information", "inf")
    assert has_word("Paris!", "paris")


def test_scripts_without_spaces_match_anywhere():
    assert has_word("私は太郎です", "太郎")


def test_every_demand_of_an_expectation_counts():
    expectation = Expectation(contains=("4",), absent=("5",), stops=True)
    assert expectation.met_by("It is 4.", stopped=True)
    assert not expectation.met_by("It is 4.", stopped=False)
    assert not expectation.met_by("It is 4 or 5.", stopped=True)
    assert not expectation.met_by("It is 5.", stopped=True)
    assert not Expectation(equals="4").met_by("4 4", stopped=True)


def test_default_cases_serve_every_quality_row():
    served = {row for case in load_cases().case for row in case.rows}
    assert served == {f"F-QUAL-{number:03d}" for number in range(66, 81)}
    assert len(load_cases().case) >= 20


def test_default_cases_name_rows_of_the_catalogue():
    known = {row.id for row in load_catalogue().rows}
    cases = load_cases()
    assert {row for entry in (*cases.case, *cases.forced) for row in entry.rows} <= known


@pytest.mark.parametrize(
    "fields",
    [{}, {"prompt": "a", "prompt_ids": (1,)}, {"prompt": "a", "max_tokens": 0}, {"prompt": "a", "min_tokens": 5}],
)
def test_contradictory_case_is_refused(fields):
    with pytest.raises(ValueError, match="bad"):
        GoldenPrompt(**{"name": "bad", "rows": (), "max_tokens": 1} | fields)


def test_unknown_field_and_repeated_name_are_refused(tmp_path):
    case = '[[case]]\nname = "a"\nrows = []\nmax_tokens = 1\nprompt = "x"\n'
    path = tmp_path / "cases.toml"
    path.write_text(case + "expct = { stops = true }\n")
    with pytest.raises(msgspec.ValidationError, match="expct"):
        load_cases(path)
    path.write_text(case * 2)
    with pytest.raises(ValueError, match="two cases are named a"):
        load_cases(path)
