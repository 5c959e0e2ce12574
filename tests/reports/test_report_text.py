"""Foreign text is made visible, numbers readable."""

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.text import clip, duration, file_size, listed, moment, number, one_line, plural, readable_amounts, visible

ANY_TEXT = st.text(st.characters(codec=None, categories=None))


@given(ANY_TEXT)
def test_visible_text_survives_xml_and_utf8(text):
    shown = visible(text)

    element = ET.fromstring(ET.tostring(_holding(shown), encoding="unicode"))  # noqa: S314 our own output
    assert (element.text or "") == shown
    assert shown.encode().decode() == shown


@given(ANY_TEXT)
def test_visible_text_has_no_control_but_newline_and_tab(text):
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", visible(text))


@given(ANY_TEXT)
def test_one_line_is_one_line(text):
    assert len(one_line(text).splitlines()) <= 1


def _holding(text: str) -> ET.Element:
    element = ET.Element("t")
    element.text = text
    return element


def test_readable_text_stays_as_it_is():
    assert visible("naïve שלום 模型 ✓\tok\n") == "naïve שלום 模型 ✓\tok\n"


def test_what_cannot_be_seen_is_spelled():
    assert visible("a\x00\r\x1b\u202e\ud800\U000e0001\uffff") == "a\\x00\\x0d\\x1b\\u202e\\ud800\\U000e0001\\uffff"


def test_clipped_text_says_how_long_it_was():
    assert clip("x" * 3_000, 5) == "xxxxx… (3,000 characters)"
    assert clip("short", 5) == "short"


@pytest.mark.parametrize(
    ("nbytes", "shown"),
    [(0, "0 B"), (1_023, "1,023 B"), (1_024, "1.0 KiB"), (1 << 30, "1.0 GiB"), (-2_048, "-2.0 KiB")],
)
def test_file_size(nbytes, shown):
    assert file_size(nbytes) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 s"),
        (4.8e-4, "480 µs"),
        (0.012, "12 ms"),
        (3.44, "3.4 s"),
        (0.9999, "1.0 s"),
        (59.99, "1 min 00 s"),
        (125, "2 min 05 s"),
    ],
)
def test_duration(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (5.0, "5"),
        (12_345, "12,345"),
        (12_345.6, "12,346"),
        (0.012345, "0.01235"),
        (1e-9, "1e-09"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_number(value, shown):
    assert number(value) == shown


def test_words():
    assert plural(1, "row") == "1 row"
    assert plural(2, "class", "classes") == "2 classes"
    assert listed([]) == ""
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdefgh"), 2) == "a, b and 6 more"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("5.47e+10 B/s over 5 runs", "54.7 GB/s over 5 runs"),
        ("> 5e+09 B/s", "> 5 GB/s"),
        ("at most 67108864 bytes", "at most 64.0 MiB"),
        ("13.8 prefill of n", "13.8 prefill of n"),
        ("12 B/s; 3 bytes", "12 B/s; 3 B"),
        ("a1e9 B/s 5 B/step 5 BF16", "a1e9 B/s 5 B/step 5 BF16"),
        ("9" * 400 + " bytes", "9" * 400 + " bytes"),
    ],
)
def test_amounts_are_told_in_a_unit_that_fits(words, told):
    assert readable_amounts(words) == told


def test_a_moment_is_told_in_words_of_the_clock():
    assert moment("2026-11-24T20:15:31+00:00") == "2026-11-24 20:15:31 UTC"
    assert moment("2026-11-24T14:03:27Z") == "2026-11-24 14:03:27 UTC"
    assert moment("<b>") == "<b>"
