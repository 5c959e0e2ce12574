"""The scorecard in a real browser: scripts run under the page's own policy, and the page works without them.

The browser is Chromium, found on the PATH or named by CHROMIUM; without one these tests are skipped, visibly. axe-core
lies in tests/vendor under its own licence and reaches no page but those of these tests.
"""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest
import sample_records as samples

from conformance.comparison import compare
from conformance.gate.decision import Cause, Decision
from conformance.observations import Equal
from conformance.record import Record
from conformance.verdicts import ExitCode
from reports.compare import comparison
from reports.difference import comparison_section
from reports.kills import kill_section
from reports.scorecard import render_scorecard
from reports.tables import done_section

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
PDFTOTEXT = shutil.which("pdftotext")
AXE = Path(__file__).parents[1] / "vendor" / "axe-core" / "axe.min.js"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--virtual-time-budget=8000",
    "--enable-logging=stderr",
    "--dump-dom",
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed (set CHROMIUM to its path)"),
]


def whole_page(record):
    """A page with every section that it can have."""
    compared = compare(samples.survived_record(), record)
    extras = [
        comparison_section(compared),
        kill_section(samples.severity(), samples.CATALOGUE),
        done_section(None),
    ]
    causes = (Cause(ExitCode.FALSIFIED, "F-MEM-029", samples.HOSTILE),)
    decision = Decision(ExitCode.FALSIFIED, causes, (("F-MEM-030", "known"),), rehearsal=False)
    history = (samples.survived_record(), samples.mixed_record())
    killers = samples.severity().killers()
    return render_scorecard(
        record, samples.CATALOGUE, extras=extras, decision=decision, history=history, killers=killers
    )


@pytest.fixture(scope="module")
def html():
    return render_scorecard(samples.mixed_record(), samples.CATALOGUE)


@pytest.fixture
def browse(tmp_path):
    def dom_of(page: str, fragment: str = "", probe: str = "", *flags: str) -> str:
        file = tmp_path / "scorecard.html"
        file.write_text(page.replace("</body>", f"<script>{probe}</script></body>") if probe else page)
        url = f"{file.as_uri()}{fragment}"
        command = [CHROMIUM, *FLAGS, *flags, f"--user-data-dir={tmp_path / 'profile'}", url]
        done = subprocess.run(command, capture_output=True, check=True, timeout=120)
        said = [line for line in done.stderr.decode().splitlines() if "CONSOLE" in line]
        assert not said, said
        return done.stdout.decode()

    return dom_of


def shown(dom: str) -> set[str]:
    rows = re.findall(r"<details class=\"row[^>]*>", dom)
    assert len(rows) == 100
    return {re.search(r'id="([^"]+)"', row)[1] for row in rows if " hidden" not in row}


def answer(dom: str) -> str:
    return re.search(r'data-answer="([^"]*)"', dom)[1]


def test_hostile_text_does_not_run(browse, html):
    for page in (html, whole_page(hostile_everywhere())):
        dom = browse(page)

        assert "<img" not in dom
        assert dom.count("<script") == 1


def hostile_everywhere():
    """The hostile text as a tensor's name, an error's text, a model's path and an engine's name, too."""
    record = samples.mixed_record()
    model = msgspec.structs.replace(record.header.model, name=f"/models/{samples.HOSTILE}")
    engine = msgspec.structs.replace(record.header.engine, name=samples.HOSTILE, capabilities=[samples.HOSTILE])
    header = msgspec.structs.replace(record.header, model=model, engine=engine, trial_id=samples.HOSTILE)
    named = [Equal(name=f"same_bytes/{samples.HOSTILE}", expected=None, observed=samples.HOSTILE)]
    rows = [msgspec.structs.replace(r, reason=samples.HOSTILE, observations=named, findings=[], weights=samples.HOSTILE)
            if r.verdict == "FALSIFIED" else r for r in record.rows]  # fmt: skip
    return Record(header, rows, record.footer)


def test_the_fragment_holds_the_filters(browse, html):
    falsified = {row.id for row in samples.mixed_record().rows if row.verdict == "FALSIFIED"}

    dom = browse(html, "#v=FALSIFIED&s=mem")

    assert shown(dom) == {"F-MEM-029", "F-MEM-032"}
    assert "2 of 100 rows" in dom
    assert shown(browse(html, "#v=FALSIFIED")) == falsified


def test_the_severity_is_a_filter_too(browse, html):
    warnings = {row.id for row in samples.CATALOGUE.rows if row.severity == "WARNING"}

    assert 0 < len(warnings) < 100
    assert shown(browse(html, "#e=WARNING")) == warnings


def test_the_record_is_unpacked_when_it_is_copied(browse, html):
    probe = """
    Object.defineProperty(navigator, "clipboard", { value: { writeText: async (words) => {
        document.body.dataset.answer = words.split("\\n").length + " " + JSON.parse(words.split("\\n")[0]).line; } } });
    document.querySelector("#copy-record button").click();
    """

    assert answer(browse(html, "", probe)) == "103 header"


def test_a_search_finds_words_inside_the_rows(browse, html):
    assert shown(browse(html, "#q=device_not_found")) == {"F-CUDA-012"}


def test_a_search_that_finds_nothing_says_so(browse, html):
    dom = browse(html, "#q=no-such-word-anywhere")

    assert shown(dom) == set()
    assert re.search(r'<p id="none" class="quiet">', dom)


def test_a_permalink_opens_its_row(browse, html):
    assert re.search(r'id="F-MEM-021"[^>]* open', browse(html, "#F-MEM-021"))


def test_keys_go_from_row_to_row(browse, html):
    probe = """
    for (const key of ["j", "j", "j", "k"]) document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", {key, bubbles: true}));
    document.body.dataset.answer = document.activeElement.closest("details").id;
    """

    assert answer(browse(html, "", probe)) == "F-MEM-029"


def test_a_chip_writes_the_filter_into_the_address(browse, html):
    probe = """
    [...document.querySelectorAll("#tools button")].find((b) => b.textContent === "Error").click();
    document.body.dataset.answer = location.hash;
    """

    dom = browse(html, "", probe)

    assert answer(dom) == "#v=ERROR"
    assert shown(dom) == {"F-LOAD-060"}


def test_everything_is_there_without_scripts(browse, html):
    dom = browse(re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL))

    assert len(shown(dom)) == 100
    assert 'id="F-MEM-029"' in dom
    assert re.search(r'<div id="tools" hidden', dom)


def test_a_narrow_screen_needs_no_sideways_scrolling(browse, html):
    probe = "document.body.dataset.answer = document.documentElement.scrollWidth - innerWidth"

    assert int(answer(browse(html, "", probe, "--window-size=500,900"))) <= 0


@pytest.mark.skipif(PDFTOTEXT is None, reason="pdftotext (poppler-utils) is not installed")
def test_it_prints_with_its_failures_open_and_without_its_tools(tmp_path, html):
    file, paper = tmp_path / "scorecard.html", tmp_path / "paper.pdf"
    file.write_text(html)
    flags = [flag for flag in FLAGS if flag != "--dump-dom"]
    command = [CHROMIUM, *flags, f"--print-to-pdf={paper}", f"--user-data-dir={tmp_path / 'profile'}", file.as_uri()]
    subprocess.run(command, capture_output=True, check=True, timeout=120)
    printed = subprocess.run([PDFTOTEXT, paper, "-"], capture_output=True, check=True, text=True, timeout=60)
    words = " ".join(printed.stdout.split())

    assert "F-MEM-029" in words
    assert "detectable effect" in words
    assert "Expand all" not in words
    assert "All sections" not in words


def beside():
    """Several records on one page, without a script of its own."""
    records = [hostile_everywhere(), samples.survived_record(), samples.rehearsal_record(failing=True)]
    return comparison(records, samples.CATALOGUE).replace(
        "default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';"
    )


def test_engines_beside_each_other_need_no_script(browse):
    dom = browse(comparison([hostile_everywhere(), samples.survived_record()], samples.CATALOGUE))

    assert "<script" not in dom
    assert "<img" not in dom


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("name", ["mixed", "survived", "rehearsal", "truncated", "beside"])
def test_axe_finds_no_barrier(browse, name, theme):
    page = beside() if name == "beside" else whole_page(getattr(samples, f"{name}_record")())
    probe = AXE.read_text() + (
        ";for (const row of document.querySelectorAll('details')) row.open = true;"
        "axe.run(document, {resultTypes: ['violations']}).then((found) => {"
        "const theme = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';"
        "document.body.dataset.answer = encodeURIComponent(JSON.stringify([theme, found.violations.map("
        "(v) => [v.id, v.nodes.length, v.nodes[0].html.slice(0, 120)])]))})"
    )
    flags = ["--blink-settings=preferredColorScheme=0"] if theme == "dark" else []

    found = answer(browse(page, "", probe, *flags))

    assert json.loads(unquote(found)) == [theme, []]
