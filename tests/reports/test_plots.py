"""Plots: small, well-formed, the same bytes each time, with words for those who cannot see them."""

import math
from xml.etree import ElementTree as ET

import pytest
import sample_records as samples
from hypothesis import given
from hypothesis import strategies as st

from conformance.observations import Equal, Growth, Sample, Tokens
from conformance.record import Finding
from conformance.verdicts import Verdict
from reports.plots import plot, stated_limit
from reports.svg import coordinate, ticks

FLOATS = st.floats(1e-6, 1e12)


def drawn(observation, finding=None) -> ET.Element:
    return ET.fromstring(plot(observation, finding))  # noqa: S314 our own output


def within(root: ET.Element) -> bool:
    _, _, width, height = map(float, root.get("viewBox").split())
    places = [float(e.get(name)) / bound for e in root.iter() for names, bound in
              ((("x", "x1", "x2", "cx"), width), (("y", "y1", "y2", "cy"), height)) for name in names
              if e.get(name) is not None]  # fmt: skip
    return all(-0.01 <= place <= 1.01 for place in places)


@given(st.lists(FLOATS, min_size=1, max_size=40), FLOATS, st.tuples(FLOATS, FLOATS), st.sampled_from(["<", ">="]))
def test_any_sample_is_drawn_inside_its_frame(values, limit, interval, relation):
    finding = Finding("rate", Verdict.INCONCLUSIVE, "r", limit=f"{relation} {limit:g} GB/s", interval=interval)

    root = drawn(Sample(name="rate", values=values, unit="GB/s"), finding)

    assert within(root)
    assert len(root.findall("circle")) == len(values)


@given(st.lists(st.integers(0, 2**45), max_size=60), st.lists(st.integers(0, 2**45), max_size=60), st.integers(0, 70))
def test_any_growth_is_drawn_inside_its_frame(account, witness, warm_up):
    image = plot(
        Growth(name="g", account=account, witness=witness, witness_name="<NVML>", warm_up=warm_up),
        None,
    )

    assert image == "" or within(ET.fromstring(image))  # noqa: S314 our own output


@given(st.lists(st.integers(0, 9), max_size=200), st.lists(st.integers(0, 9), max_size=200))
def test_any_tokens_are_drawn_inside_their_frame(expected, observed):
    image = plot(Tokens(name="t", expected=expected, observed=observed, margins=[]), None)

    assert image == "" or within(ET.fromstring(image))  # noqa: S314 our own output


def test_a_sample_shows_limit_and_interval():
    finding = Finding("rate", Verdict.FALSIFIED, "R1", limit="> 5 GB/s", interval=(4.1, math.inf))
    root = drawn(samples.sample(4.2), finding)

    assert [e.text for e in root.iter("text") if "limit" in e.get("class", "")] == ["limit > 5 GB/s"]
    assert len([e for e in root.iter("line") if e.get("class") == "interval"]) == 3


def test_the_text_alternative_says_what_the_picture_shows():
    assert "First difference at token 70 of 96: expected 359, observed 364" in drawn(samples.tokens(70)).get(
        "aria-label"
    )
    assert drawn(samples.tokens(None)).get("aria-label") == "All 96 tokens equal."
    assert "change since warm-up ended" in drawn(samples.growth(0)).get("aria-label")


def test_a_tie_does_not_look_like_a_failure():
    image = plot(samples.tokens(41, margin=0.004), Finding("tokens", Verdict.CORROBORATED, "R6"))

    assert 'class="tie"' in image
    assert 'class="differs"' not in image


def test_the_same_observation_gives_the_same_bytes():
    assert plot(samples.growth(4_096), None) == plot(samples.growth(4_096), None)


def test_nothing_is_drawn_where_a_picture_would_say_nothing():
    assert plot(Equal(name="a", expected=1, observed=1), None) == ""
    assert plot(Sample(name="a", values=[], unit="s"), None) == ""


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("> 5 GB/s", (">", 5.0)),
        ("<= 2.5e+03 ms", ("<=", 2500.0)),
        ("near-tie margin 0.02", ("", None)),
        ("< . s", ("", None)),
    ],
)
def test_the_limit_is_read_from_the_finding(limit, expected):
    assert stated_limit(Finding("a", Verdict.FALSIFIED, "r", limit=limit)) == expected


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12))
def test_ticks_lie_between_the_limits(low, span):
    marks = ticks(low, low + span)

    assert all(low - span * 1e-6 <= mark <= low + span * (1 + 1e-6) for mark in marks)


def test_coordinates_are_short():
    assert [coordinate(v) for v in (-0.01, 0.0, 10.0, 3.14159)] == ["0", "0", "10", "3.1"]
