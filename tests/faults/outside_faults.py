"""Faults that live outside the project, as a third party would bring them."""

from conformance.faults.planting import Plant, fault


@fault(expects={"F-PARSE-041": "files"}, blast=("parse", "dtype", "err"))
def coverage_unchecked(plant: Plant) -> None:
    """Whether tensors overlap or leave holes is never looked at."""
    from reference_engine import header

    plant.replace(header, "_check_coverage", lambda _original, *_arguments: None)


@fault(expects={"F-PARSE-041": "files"})
def nothing_is_wrong(plant: Plant) -> None:
    """The header is parsed as it should be: no fault, and nothing may see it."""
    from reference_engine import files

    plant.replace(files, "parse_header", lambda parse, *arguments: parse(*arguments))
