"""A page from a benchmark's rows: one table, a roofline plot, and the command; a pure function of the rows.

python benchmarks/page.py bench.json bench.md roofline.svg
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rows import Row, read_rows

COMMAND = "nox -s bench -- --json bench.json"
WIDTH, LINE, LEFT, RIGHT = 760, 22, 330, 90
LARGE = 10_000
COLORS = {"ours": "#0b6e4f"}


def table(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = [
        "| what | engine | dtype | value | 95 % interval | limit | share | note |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        interval = "" if row.interval is None else f"{number(row.interval[0])} to {number(row.interval[1])}"
        value = "not measured" if row.value is None else f"{number(row.value)} {row.unit}"
        limit = "" if row.limit is None else f"{number(row.limit)} {row.unit}"
        share = "" if row.share_of_limit is None else f"{row.share_of_limit:.0%}"
        note = row.note.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {row.name} | {row.engine} | {row.dtype} | {value} | {interval} | {limit} | {share} | {note} |")
    return "\n".join(lines) + "\n"


def page(rows: Sequence[Row], plot: str, device: str) -> str:
    """The page in Markdown; `plot` is the path of the SVG beside it."""
    return (
        f"# Benchmark on {device}\n\nMade by `{COMMAND}`. Limits are measured in the same run; a share is the part of "
        "its limit that a number reaches. A number without an interval was measured once.\n\n"
        f"![Share of the limit]({plot})\n\n{table(rows)}"
    )


def roofline(rows: Sequence[Row]) -> str:
    """Bars of what each reaches of the limit, the roof at 100 %, as a self-contained SVG."""
    shown = [row for row in rows if row.share_of_limit is not None]
    height = LINE * (len(shown) + 2)
    span = WIDTH - LEFT - RIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-size="12"',
        ' font-family="sans-serif">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<line x1="{LEFT + span}" y1="{LINE}" x2="{LEFT + span}" y2="{height - LINE // 2}" stroke="#a00"/>',
        f'<text x="{LEFT + span}" y="{LINE - 6}" text-anchor="middle" fill="#a00">limit</text>',
    ]
    for place, row in enumerate(shown):
        top, share = LINE * (place + 1) + 4, min(row.share_of_limit or 0.0, 1.1)
        color = COLORS.get(row.engine, "#888")
        label = escape(f"{row.name} {row.dtype}, {row.engine}")
        shown_value = escape(f"{row.share_of_limit:.0%}")
        parts += [
            f'<text x="{LEFT - 8}" y="{top + 12}" text-anchor="end">{label}</text>',
            f'<rect x="{LEFT}" y="{top}" width="{span * share:.1f}" height="{LINE - 8}" fill="{color}"/>',
            f'<text x="{LEFT + span * share + 5:.1f}" y="{top + 12}">{shown_value}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


def number(value: float) -> str:
    """Four significant digits, without an exponent for what people read."""
    return f"{value:.4g}" if abs(value) < LARGE else f"{value:.0f}"


def escape(text: str) -> str:
    """Text for XML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def main() -> None:
    """Write the page and the plot of a JSON file of rows."""
    source, target, plot = map(Path, sys.argv[1:4])
    rows = read_rows(source)
    device = next((row.note for row in rows if row.name == "device"), "an unnamed device")
    plot.write_text(roofline(rows), encoding="utf-8")
    target.write_text(page(rows, plot.name, device), encoding="utf-8")


if __name__ == "__main__":
    main()
