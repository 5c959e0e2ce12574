"""Which classes a trial of the default profile tries: one of each mechanism, so that it ends in seconds.

The long profile tries them all.
"""

from __future__ import annotations

from conformance.corpus.safetensors.classes import CorpusClass
from conformance.corpus.safetensors.registry import of_row

CORE: dict[str, tuple[str, ...]] = {
    "F-PARSE-036": (
        "general.weights",
        "general.anything",
        "containers.no_tensors",
        "containers.tensor_misaligned",
        "containers.payload_shuffled",
        "values.looks_like_header",
    ),
    "F-PARSE-037": (
        "containers.padding_long",
        "containers.header_length_odd",
        "containers.fields_permuted",
        "containers.spaced",
        "containers.fields_escaped",
    ),
    "F-PARSE-038": (
        "names.unicode",
        "names.normal_form_twins",
        "names.case_twins",
        "names.like_metadata",
        "names.empty",
        "names.escaped_characters",
        "names.long_twins",
    ),
    "F-PARSE-039": (
        "containers.scalar",
        "containers.rank_high",
        "containers.zero_sized_between",
        "containers.zero_sized_giant",
    ),
    "F-PARSE-040": ("dtypes.all_at_once", "dtypes.f16", "dtypes.bf16", "dtypes.f4", "entries.dtype_unknown"),
    "F-PARSE-041": (
        "offsets.hole",
        "offsets.overlap",
        "offsets.reversed_pair",
        "offsets.past_end",
        "offsets.first_not_at_zero",
        "offsets.trailing_bytes",
        "offsets.negative",
        "offsets.fraction",
        "offsets.above_32_bits",
        "offsets.consistent_and_giant",
        "shapes.product_too_small",
        "shapes.product_too_big",
        "shapes.dim_negative",
        "shapes.dim_fraction",
        "shapes.elements_wrap",
        "shapes.bytes_wrap",
        "shapes.dim_whole_float",
        "shapes.dim_true_for_one",
        "shapes.dim_not_number",
        "offsets.not_numbers",
    ),
    "F-PARSE-042": (
        "framing.length_zero",
        "framing.length_cuts_json",
        "framing.length_past_end",
        "framing.length_allocatable",
        "framing.length_wraps",
        "encoding.stray_byte",
        "encoding.nul_padding",
        "syntax.bracket_missing",
        "syntax.second_document",
        "syntax.root_not_object",
        "syntax.depth_bomb",
        "syntax.mark_bit_flipped",
        "syntax.not_a_number",
        "entries.field_missing",
        "entries.field_twice",
        "entries.name_twice",
    ),
    "F-PARSE-043": ("truncation.in_header", "truncation.last_bytes", "truncation.first_bytes"),
    "F-PARSE-044": (
        "foreign.pickled",
        "foreign.torch_zip",
        "foreign.numpy_npy",
        "foreign.gguf",
        "foreign.apr",
        "foreign.all_zeros",
        "foreign.all_ones",
    ),
    "F-PARSE-045": (
        "keyvalue.ordinary",
        "keyvalue.absent_or_empty",
        "keyvalue.like_entry",
        "keyvalue.any_text",
        "metadata.value_number",
        "metadata.shaped_like_tensor",
    ),
    "F-DTYPE-051": ("dtypes.mixed",),
    "F-DTYPE-054": ("values.special", "values.every_half"),
}


def tried_on(row: str, profile: str) -> tuple[CorpusClass, ...]:
    """The classes that a trial of this profile tries on a row: its core, or with `long` every one."""
    classes = of_row(row)
    if profile == "long":
        return classes
    return tuple(found for found in classes if found.name in CORE.get(row, ()))
