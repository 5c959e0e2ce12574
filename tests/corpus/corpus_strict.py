"""A strict parser of the format in plain Python: the healthy one that the corpus must leave alone."""

import json
import math
import re

from conformance.corpus.safetensors.builder import DTYPE_BITS

U64 = 2**64


class Bad(Exception):
    """The file breaks the format; the text is the cause."""


class Strict:
    """Reads exactly what the written format allows, and nothing that it leaves open but unknown fields."""

    message = "{path}: {cause}"
    kind = "invalid_file"

    def open(self, data):
        header, buffer = self.split(data)
        tensors, metadata = self.entries(self.parse(header))
        self.ranges(tensors, buffer)
        return tensors, metadata, buffer

    def split(self, data):
        if len(data) < 8:
            raise Bad("shorter than eight bytes")
        length = self.length(data[:8])
        if length > 100_000_000:
            raise Bad(f"header of {length} bytes is over the limit")
        if 8 + length > len(data):
            raise Bad(f"header of {length} bytes in a truncated file")
        return data[8 : 8 + length], data[8 + length :]

    def length(self, prefix):
        return int.from_bytes(prefix, "little")

    def text(self, header):
        try:
            return header.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Bad(f"header encoding: {error.reason}") from error

    def parse(self, header):
        text = self.text(header)
        if not text.startswith("{"):
            raise Bad("header does not begin with a brace")
        try:
            root = json.loads(
                text.rstrip(" "), object_pairs_hook=self.pairs, parse_constant=self.constant, parse_int=int
            )
        except (ValueError, RecursionError) as error:
            raise Bad(f"header JSON: {type(error).__name__}") from error
        if not isinstance(root, dict):
            raise Bad("header is no JSON object")
        return root

    def pairs(self, pairs):
        if len({key for key, _ in pairs}) < len(pairs):
            raise Bad("duplicate key")
        return dict(pairs)

    def constant(self, word):
        raise Bad(f"JSON has no {word}")

    def entries(self, root):
        metadata = self.metadata(root.pop("__metadata__", {}))
        return {self.name(name): self.entry(name, value) for name, value in root.items()}, metadata

    def name(self, name):
        if re.search("[\ud800-\udfff]", name):
            raise Bad("lone surrogate")
        return name

    def metadata(self, value):
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise Bad("metadata is no string map")
        return value

    def entry(self, name, value):
        if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
            raise Bad(f"tensor {name!r} lacks fields")
        dtype, shape, pair = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
            raise Bad(f"tensor {name!r} has dtype {str(dtype)[:20]!r}")
        if not isinstance(pair, list) or len(pair) != 2 or not isinstance(shape, list):
            raise Bad(f"tensor {name!r} needs a shape and two offsets")
        return dtype, [self.number(dim) for dim in shape], *map(self.number, pair)

    def number(self, value):
        if type(value) is not int or not 0 <= value < U64:
            raise Bad(f"number {str(value)[:20]}")
        return value

    def size(self, dtype, shape):
        bits = math.prod(shape) * DTYPE_BITS[dtype]
        if bits % 8 or bits >= U64:
            raise Bad("size in bytes")
        return bits // 8

    def ranges(self, tensors, buffer):
        cursor = 0
        for name, (dtype, shape, begin, end) in sorted(tensors.items(), key=lambda item: item[1][2:]):
            self.follows(name, begin, end, cursor)
            self.fits(name, self.size(dtype, shape), begin, end)
            cursor = end
        self.ends(cursor, buffer)

    def follows(self, name, begin, end, cursor):
        if begin != cursor:
            raise Bad(f"tensor {name!r} leaves a hole or overlaps")
        if end < begin:
            raise Bad(f"tensor {name!r} ends before it begins")

    def fits(self, name, size, begin, end):
        if end - begin != size:
            raise Bad(f"tensor {name!r} has size {end - begin}, not {size}")

    def ends(self, cursor, buffer):
        if cursor != len(buffer):
            raise Bad(f"tensors end at {cursor}, the buffer at {len(buffer)}")

    def read(self, buffer, entry):
        return buffer[entry[2] : entry[3]]
