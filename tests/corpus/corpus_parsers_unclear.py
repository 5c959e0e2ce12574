"""Parsers that find every fault and do not say it clearly, and one that finds faults where there are none."""

from corpus_strict import Bad, Strict


class Vague(Strict):
    """Says that something is wrong, and not what."""

    message = "{path}: failed to load invalid file"


class Nameless(Strict):
    """Does not name the file."""

    message = "header: {cause}"


class Internal(Strict):
    """Answers with the kind for its own mistakes."""

    kind = "internal"


class Refusing(Strict):
    """Refuses everything, clearly."""

    def open(self, _data):
        raise Bad("checksum of the header does not match")
