"""What F-BUILD-010 rests on: public names found in sources, names found on pages, tools found or not."""

from __future__ import annotations

import pytest

from checks.support.documentation import documented_items, public_items, require_tool, warnings_in
from conformance.manifest import CommandTable
from conformance.trial.stand import NotTried

SOURCE = """
class Shown:
    def method(self): ...
    def _hidden(self): ...
    class Inner:
        def deep(self): ...
class _Hidden:
    def method(self): ...
async def function(): ...
"""


@pytest.fixture
def copy(tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "__init__.py").write_text("def top(): ...\n")
    (tmp_path / "engine" / "_private.py").write_text("def unseen(): ...\n")
    (tmp_path / "engine" / "part.py").write_text(SOURCE)
    (tmp_path / "other.py").write_text("def elsewhere(): ...\n")
    return tmp_path


def test_public_items_are_those_without_an_underscore(copy):
    names = ["Shown", "Shown.Inner", "Shown.Inner.deep", "Shown.method", "function"]
    assert public_items(copy, ["engine"]) == sorted([*(f"engine.part.{name}" for name in names), "engine.top"])


@pytest.mark.parametrize(
    "page",
    [
        '<section id="Shown.method"><h1>x</h1></section>',
        '<dt class="sig" id="engine.part.Shown.method">',
        '<a name="engine.part.Shown.method"></a>',
    ],
)
def test_an_item_is_documented_where_a_page_has_its_anchor(page, tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "part.html").write_text(page)
    assert "engine.part.Shown.method" in documented_items(tmp_path)


@pytest.mark.parametrize("page", ["Shown.method", "<!-- Shown.method -->", '<a href="#Shown.method">', ""])
def test_a_mention_is_no_documentation(page, tmp_path):
    (tmp_path / "part.html").write_text(page)
    assert not documented_items(tmp_path)


def test_an_anchor_on_another_modules_page_does_not_count(tmp_path):
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine" / "other.html").write_text('<section id="Shown">')
    assert "engine.part.Shown" not in documented_items(tmp_path)


def test_warnings_are_lines_that_warn():
    output = "Warn: no\nwarning: missing docs\nWARNING x\nforewarned is fine\nbuilt 3 pages\n"
    assert warnings_in(output) == ["Warn: no", "warning: missing docs", "WARNING x"]


@pytest.mark.parametrize("command", [["{python}", "-m", "no_such_tool_at_all"], ["no-such-program-at-all", "doc"]])
def test_a_tool_that_is_not_there_leaves_the_row_untried(command):
    with pytest.raises(NotTried, match="is not installed"):
        require_tool(CommandTable(command=command))


def test_a_tool_that_is_there_is_found():
    require_tool(CommandTable(command=["{python}", "-m", "pytest"]))
    require_tool(CommandTable(command=["sh", "-c", "true"]))
