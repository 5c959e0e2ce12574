"""A header parser that lets through one thing, or changes one: each fault is one missing or mistaken step."""

from conformance.faults.parsing import header_text, names, offsets, shapes, whole_files

__all__ = ["header_text", "names", "offsets", "shapes", "whole_files"]
