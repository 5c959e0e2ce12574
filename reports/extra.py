"""A section that a report adds to the scorecard."""

from __future__ import annotations

import msgspec
from markupsafe import Markup


class Extra(msgspec.Struct, frozen=True):
    """A further section of the page, rendered by its own report (kill matrix, difference to a baseline)."""

    anchor: str
    title: str
    body: Markup


def row_link(row: str) -> Markup:
    """A link to a row of the page."""
    return Markup('<a class="id" href="#{0}">{0}</a>').format(row)


def table(head: list[str], rows: list[list[Markup | str]], caption: str) -> Markup:
    """A table that scrolls sideways by itself; strings are escaped, Markup is not."""
    columns = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in head)
    lines = Markup("\n").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>').format(
            row[0], Markup("").join(Markup("<td>{}</td>").format(cell) for cell in row[1:])
        )
        for row in rows
    )
    return Markup(
        '<div class="scroll" tabindex="0" role="group" aria-label="{}"><table><thead><tr>{}</tr></thead>\n'
        "<tbody>{}</tbody></table></div>"
    ).format(caption, columns, lines)
