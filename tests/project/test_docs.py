"""The documentation says what is so: generated parts are current, tables are whole, links lead somewhere."""

import re
import shutil
import tomllib

import msgspec
import pytest
from documented import FENCE, OURS, README, ROOT, code_of, trial

from conformance.catalogue import load_catalogue
from conformance.documentation import manifest_blocks, markdown, protocol_blocks, statistics_blocks
from conformance.documentation.pages import CHECKS_PAGE, SCREENSHOT, blocks, expected, pages, row_pages
from conformance.manifest import Manifest
from conformance.protocol.messages import METHODS, Capability, ErrorKind
from conformance.protocol.schemas import schemas
from conformance.record import read_record
from conformance.verdicts import EXIT_MEANING, MEANING, ExitCode, Verdict

SLOW_PAGES = {"statistics.md"}
LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize(
    "page",
    [pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in SLOW_PAGES else []) for page in pages()],
)
def test_generated_parts_of_a_page_are_current(page):
    assert page.read_text(encoding="utf-8") == expected(page), "stale: python -m conformance.documentation"


def test_every_block_is_used_and_every_marker_is_closed():
    used = [name for page in pages() for name in markdown.block_names(page.read_text())]
    markers = sum(page.read_text().count("<!-- generated:") for page in pages())
    assert set(used) == set(blocks())
    assert markers == len(used)


def test_an_unknown_block_is_an_error():
    with pytest.raises(markdown.UnknownBlock, match="nonsense"):
        markdown.fill("<!-- generated: nonsense -->\n<!-- end -->", blocks())


def test_a_stale_block_is_replaced_and_the_rest_left_alone():
    page = "before\n<!-- generated: one -->\nold | text\n<!-- end -->\nafter"
    assert markdown.fill(page, {"one": lambda: "new"}) == page.replace("old | text", "new")


def test_a_pipe_and_a_line_break_do_not_end_a_cell():
    assert markdown.table(["a"], [["x | y\nz"]]).splitlines()[-1] == "| x \\| y z |"


# --- README against the code ------------------------------------------------------------------------------


def rows_of(text, head):
    lines = text.split(head + "\n", 1)[1].splitlines()[1:]
    table = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def test_readme_has_every_verdict_with_its_meaning():
    stated = {Verdict(name): meaning for name, meaning in rows_of(README.read_text(), "| verdict | meaning |")}
    assert stated == MEANING
    assert set(MEANING) == set(Verdict)


def test_readme_has_every_exit_code():
    stated = {ExitCode(int(code)): meaning for code, meaning in rows_of(README.read_text(), "| code | when |")}
    assert stated == EXIT_MEANING
    assert set(EXIT_MEANING) == set(ExitCode)


def test_readme_names_exactly_the_rows_without_a_check():
    state = README.read_text().split("\n## State\n")[1].split("\n## ")[0]
    stated = re.findall(r"F-[A-Z]+-\d{3}", state)
    assert stated == [row.id for row in load_catalogue().rows if not row.written]


def test_readme_says_that_faults_are_missing_as_long_as_they_are():
    planted = [path for path in (ROOT / "conformance" / "faults").glob("*.py") if path.name != "__init__.py"]
    said = "are not part of this version" in README.read_text()
    assert said is not bool(planted)


def test_readme_shows_the_scorecard_exactly_if_there_is_a_picture():
    assert (f"]({SCREENSHOT.as_posix()})" in README.read_text()) is (ROOT / SCREENSHOT).is_file()


def test_readme_lists_every_file_that_a_trial_leaves(tmp_path):
    directory = trial(tmp_path, "-k", "F-ERR-094")
    listed = {name for cells in rows_of(README.read_text(), "| file | what it is |") for name in code_of(cells[0])}
    assert {path.name for path in directory.iterdir()} <= {name.rstrip("/") for name in listed}


# --- checks, manifest, protocol ---------------------------------------------------------------------------


def test_every_row_is_in_the_table_of_checks_and_has_a_page_that_says_what_is_observed():
    told = {row: page.read_text() for page, row in row_pages().items()}
    assert re.findall(r"\[(F-[A-Z]+-\d{3})\]", (ROOT / CHECKS_PAGE).read_text()) == [row.id for row in told]
    assert len(told) == 100
    for row, text in told.items():
        assert text.startswith(f"# {row.id}\n")
        assert ("Not written yet" in text) is not row.written
        assert all(f"`{name}`" in text for name in (*row.observes, *row.observes_on_gpu))
        assert row.why, "what an easier check would miss"


def test_no_page_of_a_row_lies_there_that_the_catalogue_does_not_have():
    assert set((ROOT / "docs" / "checks").iterdir()) == set(row_pages())


def test_every_key_of_the_manifest_is_explained_and_no_other():
    tables = msgspec.inspect.type_info(Manifest).fields
    for table in tables:
        structs = [t for t in getattr(table.type, "types", [table.type]) if isinstance(t, msgspec.inspect.StructType)]
        for struct in structs:
            assert {field.name for field in struct.fields} == set(manifest_blocks.MEANING[table.name])


def test_manifests_shown_in_the_documentation_are_valid():
    shown = [text for page in OURS for language, text in FENCE.findall(page.read_text()) if language == "toml"]
    assert len(shown) >= 2
    for text in shown:
        assert msgspec.convert(tomllib.loads(text), Manifest).driver is not None


def test_every_capability_and_kind_of_error_is_explained():
    assert set(protocol_blocks.CAPABILITY_MEANING) == set(Capability)
    assert set(protocol_blocks.ERROR_MEANING) == set(ErrorKind)


def test_the_protocol_page_has_every_method_and_every_message():
    text = (ROOT / "docs" / "protocol.md").read_text()
    assert all(f"| `{name}` |" in text for name in METHODS)
    described = set(schemas()["$defs"]) - {
        "Request", "Response", "RpcError", "ErrorData", "ErrorKind", "Capability", "Empty",
    }  # fmt: skip
    assert described == {kind.__name__ for kind in protocol_blocks.message_types()}


def test_the_trial_of_the_example_engine_tries_nothing_it_does_not_offer(tmp_path):
    shutil.copytree(ROOT / "docs" / "examples", tmp_path / "engine")
    directory = trial(tmp_path, "--engine", "engine/minimal.toml", "--section", "load")
    rows = [row for row in read_record(directory / "record.jsonl").rows if row.reason != "not selected"]
    assert {row.verdict for row in rows} == {Verdict.UNTESTED}
    assert {row.reason for row in rows} <= {"capability model is not offered", "no CUDA device", "not written"}


def test_the_looks_of_a_rule_are_the_pages_examples():
    limits = {(limit.alpha, limit.looks, limit.max_sd) for limit in statistics_blocks.sampled_limits().values()}
    assert len(limits) == 1, "docs/statistics.md simulates one set of numbers; there are several now"


# --- links, names, commands -------------------------------------------------------------------------------


@pytest.mark.parametrize("page", OURS, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file), target


def anchors(file):
    headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", OURS, ids=lambda page: page.name)
def test_paths_of_the_project_that_are_named_exist(page):
    made_by_a_trial = {"evidence/"}
    for name in code_of(page.read_text()):
        first = name.split("/")[0]
        if "/" in name and first and (ROOT / first).is_dir() and " " not in name and name not in made_by_a_trial:
            assert list(ROOT.glob(name.rstrip("/"))), name


@pytest.mark.parametrize("page", OURS, ids=lambda page: page.name)
def test_no_page_names_a_machine(page):
    assert not re.search(r"/(work|root|home|Users)/", page.read_text())
