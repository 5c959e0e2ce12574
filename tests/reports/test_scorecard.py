"""The scorecard: one page that stands alone, says the same for the same record, and believes nothing it is told."""

import hashlib
import re
from html.parser import HTMLParser

import msgspec
import pytest
import sample_records as samples
from markupsafe import Markup

from conformance.machine import machine_hash
from conformance.observations import Equal
from conformance.record import BrokenRecord, Evidence, Finding, Footer, Record, RowResult, parse_record
from conformance.verdicts import MEANING, ExitCode, Verdict
from reports.embedded import record_within
from reports.extra import Extra
from reports.hexdump import Exhibit
from reports.scorecard import (
    MAX_PAGE_BYTES,
    PageTooLarge,
    code,
    environment_table,
    fingerprint_line,
    render_scorecard,
)

COUNTER_EXAMPLE = "counterexamples/F-PARSE-041/9c1e.safetensors"


class Page(HTMLParser):
    """Tags, ids and text of a page; every tag that is opened must be closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in {"meta", "br"}:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self._open and self._open[-1] == "script" else self.text).append(data)

    def ids(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


def page_of(record: Record, **options) -> str:
    return render_scorecard(record, samples.CATALOGUE, **options)


def test_the_same_record_gives_the_same_bytes():
    assert page_of(samples.mixed_record()) == page_of(samples.mixed_record())


def test_nothing_is_fetched_and_the_policy_forbids_it():
    html = page_of(samples.mixed_record())
    page = Page(html)
    policy = next(a["content"] for t, a in page.tags if t == "meta" and a.get("http-equiv"))

    expected = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"
    assert policy == expected
    assert not [t for t, a in page.tags if t in {"link", "iframe", "img", "object"} or "src" in a]
    assert all(a["href"].startswith(("#", "data:")) for t, a in page.tags if t == "a")
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    assert "url(" not in html
    assert "@import" not in html


def test_every_row_has_one_anchor_and_ids_are_unique():
    ids = Page(page_of(samples.mixed_record())).ids()

    assert len(ids) == len(set(ids))
    assert {row.id for row in samples.CATALOGUE.rows} <= set(ids)


def test_criteria_stand_there_word_for_word():
    text = " ".join("".join(Page(page_of(samples.survived_record())).text).split())
    for row in samples.CATALOGUE.rows:
        assert row.criterion.replace("`", "") in text


def test_falsified_rows_are_open_and_first():
    html = page_of(samples.mixed_record())
    order = re.findall(r'data-verdict="([A-Z]+)"', html)
    opened = re.findall(r'<details class="row [^>]*data-verdict="([A-Z]+)"[^>]* open', html)

    assert order[0] == "FALSIFIED"
    assert order[-1] == "CORROBORATED"
    assert set(opened) == {"FALSIFIED", "ERROR"}


def test_the_embedded_record_is_the_record_and_makes_the_page_again(tmp_path):
    record = samples.mixed_record()
    page = tmp_path / "scorecard.html"
    page.write_text(page_of(record))

    raw = record_within(page)

    assert raw == samples.encode_record(record)
    assert parse_record(raw, page) == record
    assert page_of(parse_record(raw, page)) == page.read_text()
    assert hashlib.sha256(raw).hexdigest() in page.read_text()


def test_the_bytes_of_the_records_file_are_embedded_as_they_are(tmp_path):
    raw = samples.encode_record(samples.survived_record()).replace(b'"line":"header"', b'"line": "header"')
    page = tmp_path / "scorecard.html"
    page.write_text(page_of(samples.survived_record(), raw=raw))

    assert record_within(page) == raw


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("base64,", "base64,AAAA"), "damaged"),
        (('id="record"', 'id="gone"'), "no record lies inside"),
    ],
)
def test_a_damaged_embedded_record_is_an_error(tmp_path, change, told):
    page = tmp_path / "scorecard.html"
    page.write_text(page_of(samples.survived_record()).replace(*change))

    with pytest.raises(BrokenRecord, match=told):
        record_within(page)


def test_hostile_text_is_text():
    page = Page(page_of(samples.mixed_record()))
    text = "".join(page.text)

    assert [t for t, _ in page.tags].count("script") == 1
    assert '</script><script>alert("pwned")</script><img src=x onerror=alert(1)>' in text
    assert "\\x00\\x1b[31mred" in text
    assert "\\u202egnp.exe" in text
    assert "{{ 7*7 }}" in text


def test_a_rehearsal_says_first_that_nothing_was_shown_about_the_gpu():
    html = page_of(samples.rehearsal_record())

    assert re.search(r"<h1[^>]*>REHEARSAL on the CPU: nothing was shown about the GPU\.", html)


def test_a_failed_rehearsal_is_among_the_failures():
    html = page_of(samples.rehearsal_record(failing=True))

    assert html.index("Failed in rehearsal") < html.index('data-verdict="UNTESTED"')
    assert re.search(r'id="F-MEM-029"[^>]* open', html)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"catalogue_sha256": "0" * 64}, "another catalogue"),
        ({"revision_dirty": True}, "uncommitted changes"),
        ({"selected": ["F-MEM-029"]}, "A partial trial: 1 of 100 rows"),
    ],
)
def test_reasons_not_to_compare_stand_at_the_top(change, told):
    record = samples.survived_record()
    changed = Record(msgspec.structs.replace(record.header, **change), record.rows, record.footer)

    assert told in page_of(changed).split("<main>")[0]


def words_of(html: str) -> str:
    return " ".join("".join(Page(html).text).split())


def test_what_was_tried_with_what_and_when_is_named():
    record = samples.mixed_record()
    words = words_of(page_of(record))

    for told in ("naive-engine 0.3.1+g4f1c2aa", "build, device, storage, file, model, generate",
                 "ieee_f32, as declared",
                 "fixture-qwen2 (fixture), 11.3 MiB", "on fixture-qwen2 (fixture)", "2026-11-24 14:03:27 UTC",
                 "17 min 35 s", "20261124", record.header.model.sha256, record.header.engine.manifest_sha256,
                 "falsify run --engine 'engines/naïve.toml'", "870 ms"):  # fmt: skip
        assert told in words


def test_the_legend_explains_every_verdict():
    words = words_of(page_of(samples.mixed_record()))

    assert all(MEANING[verdict] in words for verdict in Verdict)


def test_a_row_says_all_that_its_verdict_rests_on():
    html = page_of(samples.mixed_record())
    row = html[html.index('id="F-MEM-029"') : html.index("</details>", html.index('id="F-MEM-029"'))]

    for told in ("Below threshold = FAIL", "observed", "4.116 GB/s to 4.284 GB/s", "<dt>rule</dt>", "<dt>limit</dt>",
                 "<dt>interval</dt>", "<dt>error rate</dt>", "<dt>detectable effect</dt>", "<svg", "Reproduce",
                 "--seed 29 F-MEM-029", "severity FAIL"):  # fmt: skip
        assert told in row, told


def test_what_is_not_shown_is_said():
    words = words_of(page_of(samples.rehearsal_record())).split("What this does not show")[-1]

    assert "The GPU. No NVIDIA device was visible" in words
    assert "Any real checkpoint: the rows were tried on a small model" in words
    assert "That survival is proof." in words


def test_hashes_of_another_harness_are_marked():
    record = samples.survived_record()
    same = record.header.thresholds_sha256

    assert "not this harness's" not in page_of(record, thresholds_sha256=same)
    assert page_of(record, thresholds_sha256="0" * 64).count("not this harness's") == 1


def test_the_gate_names_the_rows_that_left_it_undecided():
    record = samples.survived_record()
    rows = [
        RowResult("F-MEM-029", Verdict.UNTESTED, reason="no peer") if r.id == "F-MEM-029" else r for r in record.rows
    ]

    top = page_of(samples.finished(record.header, rows)).split("<main>")[0]

    assert 'because of <a href="#F-MEM-029">F-MEM-029</a>' in " ".join(top.split())


def test_agreeing_observations_are_folded_where_there_are_many():
    html = page_of(samples.survived_record())
    names = [Equal(name=f"part/{n}", expected=n, observed=n or 9) for n in range(5)]
    findings = [Finding(o.name, Verdict.FALSIFIED if not n else Verdict.CORROBORATED, "equal")
                for n, o in enumerate(names)]  # fmt: skip
    row = RowResult("F-BUILD-001", Verdict.FALSIFIED, reason="x", observations=names, findings=findings)
    many = page_of(samples.finished(samples.header(), [row, *samples.survived_record().rows[1:]]))

    assert '<details class="point' not in html
    assert many.count('<details class="point v-CORROBORATED"') == 4
    assert many.count('<div class="point v-FALSIFIED"') == 1


def test_a_footer_that_contradicts_its_rows_is_not_believed():
    record = samples.mixed_record()
    flattering = Footer("completed", "", 1.0, ExitCode.OPEN, {"CORROBORATED": 100}, Verdict.CORROBORATED)

    top = page_of(Record(record.header, record.rows, flattering)).split("<main>")[0]

    assert "Falsified: 7 of 100" in top
    assert "counts disagree" in top
    assert 'class="gate shut"' in top


def test_a_counter_example_is_shown_with_its_bytes_and_offered_for_download():
    html = page_of(samples.mixed_record(), exhibits={COUNTER_EXAMPLE: Exhibit(samples.COUNTER_EXAMPLE, ((56, 57),))})

    assert "<mark>34</mark>" in html
    assert "<mark>4</mark>" in html
    assert "data:application/octet-stream;base64," in html


def test_a_text_file_is_shown_as_text():
    log = Evidence("log.txt", "0" * 64, 20, media_type="text/plain")
    rows = [RowResult(row.id, Verdict.FALSIFIED, reason="x", evidence=[log]) for row in samples.CATALOGUE.rows]

    html = page_of(samples.finished(samples.header(), rows), exhibits={"log.txt": Exhibit(b"<b>died\x1b \xff</b>")})

    assert "&lt;b&gt;died\\x1b \ufffd&lt;/b&gt;</pre>" in html


def test_many_large_files_are_listed_even_if_they_cannot_be_shown():
    files = [Evidence(f"{row.id}.bin", "0" * 64, 60_000) for row in samples.CATALOGUE.rows]
    rows = [
        RowResult(row.id, Verdict.FALSIFIED, reason="x", evidence=[file])
        for row, file in zip(samples.CATALOGUE.rows, files, strict=True)
    ]
    exhibits = {file.path: Exhibit(bytes(16_000)) for file in files}

    html = page_of(samples.finished(samples.header(), rows), exhibits=exhibits)

    assert len(html.encode()) <= MAX_PAGE_BYTES
    assert all(file.path in html for file in files)


def test_a_huge_record_is_shortened_to_a_megabyte_and_says_so():
    noise = [Equal(name=f"part/{i}", expected="x" * 2_000, observed="y" * 2_000) for i in range(50)]
    rows = [RowResult(row.id, Verdict.ERROR, reason="z" * 9_000, observations=noise) for row in samples.CATALOGUE.rows]

    html = page_of(samples.finished(samples.header(), rows))

    assert len(html.encode()) <= MAX_PAGE_BYTES
    assert "further observations" in html


def test_a_page_that_cannot_be_shortened_is_an_error_not_a_lie():
    extra = Extra("more", "More", Markup("<p>{}</p>").format("x" * MAX_PAGE_BYTES))

    with pytest.raises(PageTooLarge):
        page_of(samples.survived_record(), extras=[extra])


def test_extra_sections_follow_the_rows():
    html = page_of(samples.survived_record(), extras=[Extra("kills", "Kill <matrix>", Markup("<p>here</p>"))])

    assert '<h2 id="kills">Kill &lt;matrix&gt;</h2>\n<p>here</p>' in html


def test_the_fingerprint_depends_on_values_and_not_on_order():
    assert machine_hash({"a": 1, "b": {"c": 2}}) == machine_hash({"b": {"c": 2}, "a": 1})
    assert machine_hash({"a": 1}) != machine_hash({"a": 2})


def test_the_fingerprint_leaves_out_what_changes_from_moment_to_moment():
    busy = {"gpus": [{"name": "H100", "used_bytes": 5, "processes": [{"pid": 1}]}], "load_average": [9.0]}

    assert machine_hash(busy) == machine_hash({"gpus": [{"name": "H100", "used_bytes": 0}], "load_average": [0.1]})


def test_the_environment_in_one_line_names_the_machine():
    environment = samples.header().environment

    assert fingerprint_line(environment).startswith("NVIDIA H100 80GB HBM3 · driver 580.65.06 · ")
    assert ("packages.torch", "2.11.0+cu130") in environment_table(environment)


def test_code_between_backticks_is_marked_and_escaped():
    assert code("a `<b>` c") == "a <code>&lt;b&gt;</code> c"
    assert code("one ` only <") == "one ` only &lt;"
