"""The page and the section say what the counts say, and load nothing."""

import re
import sys
from pathlib import Path

import msgspec
import pytest
import sample_records as samples

sys.path.insert(0, str(Path(__file__).parents[1] / "conformance" / "calibration"))
import made_pools

from conformance.calibration.replaying import replay
from reports.calibration import calibration_page, calibration_section, growth_sentence, rate_sentence, sentences
from reports.scorecard import render_scorecard

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def calibration():
    return replay(made_pools.pool(20), replays=40, seed=0)


def test_the_page_has_every_row_with_its_curves_and_counts(calibration):
    page = calibration_page(calibration)

    assert page.count("<svg") == len(calibration.rates) + len(calibration.growth) == 12
    assert all(f"{rate.row}</span> {rate.name}</h3>" in page for rate in calibration.rates)
    assert page.count("exactly on the healthy mean</th>") == 5 * len(calibration.rates)
    assert "nothing about a GPU" in page
    assert page == calibration_page(calibration)


def test_the_page_is_one_file_without_script(calibration):
    page = calibration_page(calibration)

    assert "<script" not in page
    assert not re.search(r"(src|href)=", page)
    assert "default-src 'none'" in page


def test_hostile_words_stay_words(calibration):
    hostile = msgspec.structs.replace(calibration, machine={"cpu": HOSTILE, HOSTILE: HOSTILE}, checkpoint=HOSTILE)

    assert "<script" not in calibration_page(hostile)
    assert "<script" not in calibration_section([hostile]).body


def test_a_sentence_tells_error_rate_bounds_pool_and_effect(calibration):
    rate = next(rate for rate in calibration.rates if rate.name == "load")
    told = rate_sentence(rate, calibration)

    assert f"{rate.false_alarm.falsified} of 40 (" in told
    assert "20 processes" in told
    assert f"one {rate.detects:.0%} beyond its limit is seen" in told
    growth = growth_sentence(calibration.growth[0], calibration)
    assert "0 of 40 (0% to 8.81%)" in growth
    assert "from 1.0 KiB an operation on where the engine's account shows it" in growth
    assert "from 4.0 MiB an operation on where only the witness does" in growth


def test_what_is_not_seen_is_said(calibration):
    rate = calibration.rates[0]
    blind = [
        msgspec.structs.replace(curve, cells=tuple(curve.cells[:1])) if curve.margin is None else curve
        for curve in rate.curves
    ]

    assert "none of the planted slowdowns is seen" in rate_sentence(
        msgspec.structs.replace(rate, curves=tuple(blind)), calibration
    )


def test_the_scorecard_tells_it_at_the_row_and_in_its_section(calibration):
    page = render_scorecard(
        samples.survived_record(),
        samples.CATALOGUE,
        extras=[calibration_section([calibration])],
        calibrated=sentences([calibration]),
    )
    row = page[page.index('id="F-PERF-081"') :]

    assert "an engine exactly on the limit of load" in row[: row.index("</details>")]
    assert page.count('<span class="lead">Calibration</span>') == 12


def test_without_a_calibration_nothing_is_claimed():
    assert "Not measured" in calibration_section([]).body
    assert sentences([]) == {}
    assert "Calibration</span>" not in render_scorecard(samples.survived_record(), samples.CATALOGUE)
