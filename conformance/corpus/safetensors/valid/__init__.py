"""Classes of valid files that a reader must accept and read exactly."""

from conformance.corpus.safetensors.classes import CorpusClass
from conformance.corpus.safetensors.valid import containers, dtypes, general, names

_FAMILIES = (
    general.FAMILY,
    containers.FAMILY,
    names.FAMILY,
    names.METADATA_FAMILY,
    dtypes.FAMILY,
    dtypes.VALUES,
)

VALID: tuple[CorpusClass, ...] = tuple(found for family in _FAMILIES for found in family.classes)
