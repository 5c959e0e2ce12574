"""The documentation builds as a site without a network and without a warning, and its links stay inside it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conformance.documentation import site
from conformance.documentation.pages import ROOT


def project(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "code.py").write_text("x = '](nowhere)'\n")
    (tmp_path / "NOTES.md").write_text("# Notes\n\n[page](docs/page.md) [code](code.py)\n")
    (tmp_path / "docs" / "page.md").write_text(
        "[code](../code.py) [notes](../NOTES.md#notes) [web](https://example.org)\n"
    )
    return tmp_path


def test_files_outside_the_documentation_become_pages_and_so_do_those_they_link_to(tmp_path):
    root = project(tmp_path)
    made = site.source_pages({"page.md": "[notes](../NOTES.md)"}, root, "docs")
    assert set(made) == {"source/NOTES.md", "source/code.py.md"}
    assert "````python\nx = " in made["source/code.py.md"]
    assert made["source/NOTES.md"].startswith("# Notes")


def test_links_are_turned_from_a_page_and_from_a_page_of_a_source(tmp_path):
    root = project(tmp_path)
    turned = site.turned((root / "docs" / "page.md").read_text(), "page.md", root, "docs")
    assert turned == "[code](source/code.py.md) [notes](source/NOTES.md#notes) [web](https://example.org)\n"
    below = site.turned((root / "NOTES.md").read_text(), "source/NOTES.md", root, "docs")
    assert below == "# Notes\n\n[page](../page.md) [code](code.py.md)\n"


def test_code_stays_as_it_is(tmp_path):
    root = project(tmp_path)
    code = "````python\nx = '](nowhere)'\n````\n"
    assert site.turned(code, "source/code.py.md", root, "docs") == code
    fenced = "```sh\n[x](nowhere)\n```\n"
    assert site.turned(fenced, "page.md", root, "docs") == fenced


def test_a_folder_becomes_the_list_of_what_is_in_it(tmp_path):
    root = project(tmp_path)
    (root / "folder" / "inner").mkdir(parents=True)
    (root / "folder" / "a.py").write_text("")
    made = site.source_pages({"page.md": "[f](../folder/)"}, root, "docs")
    assert made["source/folder.md"] == "# folder/\n\n- `a.py`\n- `inner/`"


@pytest.mark.parametrize("target", ["../missing.py", "../../outside.md", "/etc/passwd"])
def test_a_link_to_nothing_in_the_project_is_an_error(tmp_path, target):
    with pytest.raises(site.OutsideTheProject, match=re.escape(target)):
        site.turned(f"[x]({target})", "page.md", project(tmp_path), "docs")


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path):
    pytest.importorskip("mkdocs", reason="the dependency group docs is not installed")
    pytest.importorskip("material", reason="the dependency group docs is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > 100
    loaded = re.compile(r"<(?:script|img|link)[^>]+(?:src|href)=\"?(https?:)?//")
    assert not [page for page in pages if loaded.search(page.read_text()) and "compare.html" not in page.name]
    assert (tmp_path / "site" / "checks" / "f-mem-029.html").is_file()
    assert Path(tmp_path / "site" / "source" / "checks" / "test_iii_mem.py.html").is_file()
