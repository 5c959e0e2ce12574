"""JSON Schemas generated from the messages; committed copies lie in `docs/schemas`.

`python -m conformance.protocol.schemas docs/schemas` writes them again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from conformance import record
from conformance.protocol.messages import MAX_LINE_BYTES, METHODS, PROTOCOL_VERSION, Request, Response

DIALECT = "https://json-schema.org/draft/2020-12/schema"
REFERENCE = "#/$defs/{name}"


def schemas() -> dict[str, Any]:
    """One document: every message under `$defs`, and under `methods` what each takes, answers and needs.

    Its own schema, a line on the pipe, is a request or a response.
    """
    types = [Request, Response]
    for row in METHODS.values():
        types += [kind for kind in (row.params, row.result) if kind not in types]
    references, definitions = msgspec.json.schema_components(types, ref_template=REFERENCE)
    reference_of = dict(zip(types, references, strict=True))
    return {
        "$schema": DIALECT,
        "title": f"Protocol {PROTOCOL_VERSION}: JSON-RPC 2.0, one message a line of at most {MAX_LINE_BYTES} bytes",
        "anyOf": [reference_of[Request], reference_of[Response]],
        "methods": {
            name: {
                "params": reference_of[row.params],
                "result": reference_of[row.result],
                "capability": row.capability,
            }
            for name, row in METHODS.items()
        },
        "$defs": dict(sorted(definitions.items())),
    }


def render(schema: dict[str, Any]) -> str:
    """A schema as the text of its committed copy."""
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


def main(directory: Path) -> None:
    """Write the committed copies again."""
    for name, schema in (("protocol", schemas()), ("record", dict(record.schema()))):
        (directory / f"{name}.json").write_text(render(schema), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
