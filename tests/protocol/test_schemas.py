import json
from pathlib import Path

import pytest

from conformance import record
from conformance.protocol.messages import METHODS
from conformance.protocol.schemas import render, schemas

DIRECTORY = Path(__file__).parents[2] / "docs" / "schemas"


@pytest.mark.parametrize(
    ("name", "schema"), [("protocol", schemas()), ("record", dict(record.schema()))], ids=["protocol", "record"]
)
def test_the_committed_copy_is_what_the_types_say(name, schema):
    assert (DIRECTORY / f"{name}.json").read_text() == render(schema), (
        f"docs/schemas/{name}.json is stale: python -m conformance.protocol.schemas docs/schemas"
    )


def test_every_method_is_there_and_every_reference_resolves():
    document = schemas()
    assert set(document["methods"]) == set(METHODS)
    text = json.dumps(document)
    names = {piece.split('"')[0] for piece in text.split('"#/$defs/')[1:]}
    assert names <= set(document["$defs"])


def test_every_message_is_described():
    assert all(definition.get("description") for definition in schemas()["$defs"].values())
