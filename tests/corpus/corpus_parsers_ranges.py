"""Broken parsers whose hole lies in ranges, sizes or numbers, each seen in the wild."""

import json
import math

from corpus_strict import U64, Bad, Strict

from conformance.corpus.safetensors.builder import DTYPE_BITS


class Naive(Strict):
    """json.loads, and slices that clamp: what many loaders do."""

    def open(self, data):
        length = self.length(data[:8])
        root = json.loads(data[8 : 8 + length])
        metadata = root.pop("__metadata__", {})
        tensors = {name: (value["dtype"], value["shape"], *value["data_offsets"]) for name, value in root.items()}
        return tensors, metadata, data[8 + length :]


class NoRanges(Strict):
    """Everything is checked but the ranges: holes, overlaps, ends."""

    def ranges(self, tensors, buffer):
        pass


class NoHoles(Strict):
    """Holes, overlaps and order are not looked at."""

    def follows(self, name, begin, end, cursor):
        pass


class NoTail(Strict):
    """Bytes after the last tensor are ignored."""

    def ends(self, cursor, buffer):
        if cursor > len(buffer):
            raise Bad("truncated")


class NoEnd(Strict):
    """The end of the file is not looked at."""

    def ends(self, cursor, buffer):
        pass


class NoSize(Strict):
    """The shape is not compared with the bytes."""

    def fits(self, *_):
        pass

    def size(self, *_):
        return 0


class Wrapping(Strict):
    """Sizes are computed modulo 2**64 and numbers are taken modulo 2**64."""

    def number(self, value):
        if type(value) is not int:
            raise Bad("number")
        return value % U64

    def size(self, dtype, shape):
        bits = DTYPE_BITS[dtype]
        return math.prod(shape) % U64 * max(1, bits // 8) % U64 if bits >= 8 else super().size(dtype, shape)

    def follows(self, name, begin, end, cursor):
        pass

    def fits(self, name, size, begin, end):
        super().fits(name, size, 0, (end - begin) % U64)

    def ends(self, cursor, buffer):
        pass


class WrappingBits(Wrapping):
    """Sizes in bits are computed modulo 2**64."""

    def size(self, dtype, shape):
        return math.prod(shape) * DTYPE_BITS[dtype] % U64 // 8


class Narrow(Strict):
    """Numbers of the header are cut to 32 bits."""

    def number(self, value):
        return super().number(value) % 2**32

    def size(self, dtype, shape):
        return super().size(dtype, shape) % 2**32


class Floats(Strict):
    """Numbers pass through a double, and signs are not looked at."""

    def number(self, value):
        try:
            return int(float(value))
        except (TypeError, ValueError, OverflowError) as error:
            raise Bad("number") from error


class Narrow32Product(Strict):
    """The product of the dimensions is a 32-bit integer."""

    def size(self, dtype, shape):
        return math.prod(shape) % 2**32 * DTYPE_BITS[dtype] // 8
