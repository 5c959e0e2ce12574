"""Which pages are generated, wholly or in marked blocks."""

from __future__ import annotations

from pathlib import Path

from conformance.catalogue import Row, load_catalogue
from conformance.documentation import (
    done_blocks,
    manifest_blocks,
    mutation_blocks,
    protocol_blocks,
    result_blocks,
    statistics_blocks,
    trace_blocks,
    verdict_blocks,
)
from conformance.documentation.check_pages import check_page
from conformance.documentation.checks_page import checks_page, page_of
from conformance.documentation.evidence import committed
from conformance.documentation.markdown import Blocks, fenced, fill
from conformance.documentation.transcript import transcript
from conformance.thresholds import load_thresholds

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = Path("docs") / "examples"
SCREENSHOT = Path("docs") / "images" / "scorecard.png"
SPECIFICATION = Path("docs") / "safetensors-gpu-inference-1.2.0.md"
CHECKS_PAGE = Path("docs") / "checks.md"


def blocks(root: Path = ROOT) -> Blocks:
    """Every block by its name."""
    return {
        "verdicts": verdict_blocks.verdicts,
        "exit-codes": verdict_blocks.exit_codes,
        "unwritten-rows": verdict_blocks.unwritten_rows,
        "record-lines": verdict_blocks.record_lines,
        "observation-kinds": verdict_blocks.observation_kinds,
        "capabilities": protocol_blocks.capabilities,
        "methods": protocol_blocks.methods,
        "messages": protocol_blocks.messages,
        "error-kinds": protocol_blocks.errors,
        "manifest-tables": manifest_blocks.manifest_tables,
        "sampled-rows": statistics_blocks.sampled_rows,
        "error-rates": statistics_blocks.error_rates,
        "rate-characteristics": statistics_blocks.rate_characteristics,
        "growth-characteristics": statistics_blocks.growth_characteristics,
        "smallest-seen-leak": statistics_blocks.smallest_seen_leak,
        "class-examples": statistics_blocks.class_examples,
        "near-tie-rows": statistics_blocks.near_tie_rows,
        "done-gates": done_blocks.gates,
        "done-panel": lambda: done_blocks.panel(root),
        "mutation-score": lambda: mutation_blocks.score(root),
        "mutation-survivors": lambda: mutation_blocks.survivors(root),
        "committed-trials": lambda: result_blocks.committed_trials(root),
        "proven-checks": lambda: result_blocks.proven_checks(root),
        "traced-rows": lambda: trace_blocks.traced_rows(root),
        "screenshot": lambda: _screenshot(root),
        "transcript": lambda: transcript(root),
        "example-driver": lambda: _example(root, "minimal_driver.py", "python"),
        "plain-driver": lambda: _example(root, "plain/plain_driver.py", "python"),
        "plain-manifest": lambda: _example(root, "plain/plain.toml", "toml"),
        "example-manifest": lambda: _example(root, "minimal.toml", "toml"),
    }


def hand_written(root: Path = ROOT) -> list[Path]:
    """Pages that people write and blocks are filled into."""
    candidates = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").glob("*.md"))]
    return [page for page in candidates if page not in {root / CHECKS_PAGE, root / SPECIFICATION}]


def pages(root: Path = ROOT) -> list[Path]:
    """Every page that is generated, wholly or in part."""
    return [*hand_written(root), root / CHECKS_PAGE, *row_pages(root)]


def row_pages(root: Path = ROOT) -> dict[Path, Row]:
    """The pages of single rows."""
    return {root / "docs" / page_of(row): row for row in load_catalogue().rows}


def expected(page: Path, root: Path = ROOT) -> str:
    """What a page should say now."""
    if page == root / CHECKS_PAGE:
        return checks_page(load_catalogue(), committed(root))
    row = row_pages(root).get(page)
    if row is not None:
        return check_page(row, load_catalogue(), load_thresholds(), committed(root), root)
    return fill(page.read_text(encoding="utf-8"), blocks(root))


def write(root: Path = ROOT) -> list[Path]:
    """Write what is stale again; what was written."""
    written = []
    for page in pages(root):
        text = expected(page, root)
        page.parent.mkdir(exist_ok=True)
        if not page.is_file() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")
            written.append(page)
    return written


def _example(root: Path, name: str, language: str) -> str:
    return fenced((root / EXAMPLES / name).read_text(encoding="utf-8"), language)


def _screenshot(root: Path) -> str:
    """The picture, once there is one."""
    return f"![A scorecard]({SCREENSHOT.as_posix()})" if (root / SCREENSHOT).is_file() else ""
