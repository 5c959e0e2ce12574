"""Broken parsers whose hole lies in headers, names, entries or answers, each seen in the wild; and all of them."""

import json
import re
import unicodedata

import numpy as np
from corpus_parsers_ranges import (
    Floats,
    Naive,
    Narrow,
    Narrow32Product,
    NoEnd,
    NoHoles,
    NoRanges,
    NoSize,
    NoTail,
    Wrapping,
    WrappingBits,
)  # fmt: skip
from corpus_parsers_unclear import Internal, Nameless, Refusing, Vague
from corpus_strict import Bad, Strict

from conformance.corpus.safetensors.builder import DTYPE_BITS


class Length32(Strict):
    """The header's length is cut to 32 bits."""

    def length(self, prefix):
        return int.from_bytes(prefix[:4], "little")


class LengthAbsolute(Strict):
    """The sign bit of the header's length is dropped."""

    def length(self, prefix):
        return int.from_bytes(prefix, "little") % 2**63


class LengthEitherEnd(Strict):
    """A length that makes no sense is tried in the other byte order."""

    def length(self, prefix):
        little, big = int.from_bytes(prefix, "little"), int.from_bytes(prefix, "big")
        return little if little < 100_000_000 else big


class BraceSeeker(Strict):
    """Whatever stands before the first brace is skipped, and the header ends where its JSON ends."""

    def split(self, data):
        start = data.find(b"{")
        if start < 0:
            raise Bad("no brace")
        text = data[start:].decode("latin-1")
        try:
            _, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError) as error:
            raise Bad("JSON") from error
        while data[start + end : start + end + 1] == b" ":
            end += 1
        return data[start : start + end], data[start + end :]


class CString(Strict):
    """The header ends at the first NUL."""

    def text(self, header):
        return super().text(header.split(b"\0")[0])


class Replacing(Strict):
    """Invalid UTF-8 becomes the replacement character."""

    def text(self, header):
        return header.decode("utf-8", "replace")


class Detecting(Strict):
    """The header's encoding is guessed as JSON libraries do, byte-order marks included."""

    def text(self, header):
        return header.decode(json.detect_encoding(header), "surrogatepass").lstrip("\ufeff\0 ")


class Relaxed(Strict):
    """Reads what looks like JSON: comments, single quotes, trailing commas, bare words, control characters."""

    def parse(self, header):
        text = self.text(header)
        text = re.sub(r"/\*.*?\*/|//.*|#.*", "", text).replace("'", '"')
        text = re.sub(r",\s*([\]}])", r"\1", re.sub(r"([,:])\1", r"\1", text))
        text = re.sub(r"(?<=[{,])(dtype|shape|data_offsets)(?=:)", r'"\1"', text)
        text = re.sub(r"\\(?=[xq0U'{])|\\(?=u(?:..\"|00G|\{))", "", text)
        text = re.sub(r"\b0(?=\d)|\+(?=\d)|(?<=\d)(?:_0|L|\.(?=[\],]))", "", text)
        text = re.sub(r"\b0x([0-9a-f]+)", lambda found: str(int(found[1], 16)), text)
        text = text.replace('}"', '},"').replace(']"', '],"')
        try:
            root, _ = json.JSONDecoder(strict=False).raw_decode(text.strip())
        except (ValueError, RecursionError) as error:
            raise Bad("JSON") from error
        if not isinstance(root, dict):
            raise Bad("no object")
        return root


class FirstValue(Strict):
    """Whatever follows the first JSON value is ignored, and missing brackets are added."""

    def parse(self, header):
        text = self.text(header).rstrip(" \0")
        for closing in ("", "}", "]", "}}", "]}", "]}}"):
            try:
                root, _ = json.JSONDecoder().raw_decode(text + closing)
            except (ValueError, RecursionError):
                continue
            return root if isinstance(root, dict) else {}
        raise Bad("JSON")


class Defaults(Strict):
    """Missing, null or strange fields get defaults instead of an error."""

    def entry(self, _name, value):
        if not isinstance(value, dict):
            return "F32", [], 0, 0
        fields = {key.lower().strip(" s"): item for key, item in value.items()}
        dtype = value.get("dtype") or fields.get("dtype")
        pair = value.get("data_offsets")
        shape = value.get("shape")
        if not isinstance(pair, list) or len(pair) < 2:
            pair = [0, 0]
        dims = shape if isinstance(shape, list) else []
        known = dtype if isinstance(dtype, str) and dtype in DTYPE_BITS else "F32"
        return known, [d if type(d) is int else 1 for d in dims], *(p if type(p) is int else 0 for p in pair[:2])

    def ranges(self, tensors, buffer):
        pass

    def metadata(self, value):
        return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


class LooseDtypes(Strict):
    """Dtypes are matched in any case, by another library's name, or by their beginning."""

    def entry(self, name, value):
        if isinstance(value, dict) and isinstance(value.get("dtype"), str):
            value = {**value, "dtype": self.dtype(value["dtype"].split("\0")[0].strip())}
        return super().entry(name, value)

    def dtype(self, name):
        for known in ("BF16", "F16", "F32"):
            digits = known[-2:]
            if name and (known.startswith(name) or digits in name or name in ("half", "float", "<f2", "<f4")):
                bfloat = name.lower().removeprefix("torch.").startswith("b")
                if name in ("half", "<f2"):
                    return "F16"
                if name in ("float", "<f4"):
                    return "F32"
                if bfloat == known.startswith("B"):
                    return known
        return name


class Unknown8(Strict):
    """A dtype that is not known counts as bytes, unchecked."""

    def entry(self, name, value):
        if isinstance(value, dict) and value.get("dtype") not in DTYPE_BITS:
            begin, end = value.get("data_offsets", [0, 0])
            return "U8", [end - begin], begin, end
        return super().entry(name, value)


class LastWins(Strict):
    """Keys may repeat, the last one wins, and holes are not looked at."""

    def pairs(self, pairs):
        return dict(pairs)

    def follows(self, name, begin, end, cursor):
        pass


class Lists(Strict):
    """Entries may be lists and dtypes may be objects, as serde's derived readers allow."""

    def entry(self, name, value):
        if isinstance(value, list) and len(value) == 3:
            value = dict(zip(("dtype", "shape", "data_offsets"), value, strict=True))
        if isinstance(value, dict) and isinstance(value.get("dtype"), dict):
            value = {**value, "dtype": next(iter(value["dtype"]), "")}
        return super().entry(name, value)


class Stringly(Strict):
    """Metadata values of any type become strings; metadata of any type is let pass."""

    def metadata(self, value):
        return {k: v if isinstance(v, str) else json.dumps(v) for k, v in dict(value).items()} if value else {}

    def entries(self, root):
        value = root.pop("__metadata__", {})
        kept = self.metadata(value if isinstance(value, dict) else {})
        others = {key: item for key, item in root.items() if "meta" not in key.lower()}
        return {name: self.entry(name, item) for name, item in others.items()}, kept


class Folding(Strict):
    """Metadata that looks like a tensor is one, and metadata keys are lower-cased and stripped."""

    def entries(self, root):
        value = root.get("__metadata__", {})
        if isinstance(value, dict) and isinstance(value.get("data_offsets"), list):
            return {name: self.entry(name, item) for name, item in root.items()}, {}
        tensors, metadata = super().entries(root)
        return tensors, {key.lower().strip(): text.strip() for key, text in metadata.items() if key and text}


class Normalising(Strict):
    """Names are normalised, folded and shortened."""

    def name(self, name):
        return unicodedata.normalize("NFKC", super().name(name).split("\0")[0].strip())[:48].lower()


class NoDunder(Strict):
    """Names that begin with two underscores are dropped, and the empty one."""

    def entries(self, root):
        tensors, metadata = super().entries(root)
        return {k: v for k, v in tensors.items() if not k.startswith("__") and k}, metadata

    def ranges(self, tensors, buffer):
        pass


class Rebasing(Strict):
    """Offsets that do not begin at 0 are rebased to the first."""

    def ranges(self, tensors, buffer):
        start = min((entry[2] for entry in tensors.values()), default=0)
        for name, (dtype, shape, begin, end) in tensors.items():
            tensors[name] = dtype, shape, begin - start, end - start
        super().ranges(tensors, buffer[len(buffer) - max((e[3] for e in tensors.values()), default=0) :])


class Aligned(Strict):
    """The buffer is taken to begin at a multiple of eight."""

    def split(self, data):
        header, buffer = super().split(data)
        self.skipped = -len(header) % 8
        return header, buffer

    def read(self, buffer, entry):
        return buffer[entry[2] + self.skipped : entry[3] + self.skipped].ljust(entry[3] - entry[2], b"\0")


class FileOrder(Strict):
    """Bytes are taken in the order of the header, whatever the offsets say."""

    def open(self, data):
        tensors, metadata, buffer = super().open(data)
        cursor = 0
        for name, (dtype, shape, begin, end) in tensors.items():
            tensors[name] = dtype, shape, cursor, cursor + end - begin
            cursor += end - begin
        return tensors, metadata, buffer


class NoEmpty(Strict):
    """Refuses tensors without bytes, files without tensors, scalars, and ranks above 4."""

    def ranges(self, tensors, buffer):
        if not tensors or any(begin == end or not 1 <= len(s) <= 4 for _, s, begin, end in tensors.values()):
            raise Bad("empty tensor or rank")
        super().ranges(tensors, buffer)


class OnlyWeights(Strict):
    """Refuses every dtype that is not F32, F16 or BF16 as an invalid file."""

    def size(self, dtype, shape):
        if dtype not in ("F32", "F16", "BF16"):
            raise Bad(f"dtype {dtype}")
        return super().size(dtype, shape)


class Padded(Strict):
    """Refuses a header that is not padded to eight, not compact, over 4 KiB, or with escapes."""

    def text(self, header):
        text = super().text(header)
        if len(header) % 8 or len(header) > 4096 or re.search(r"[:,]\s|\s[:}]|\{\s|\\", text):
            raise Bad("header form")
        return text


class FieldOrder(Strict):
    """Takes the three fields by position."""

    def entry(self, name, value):
        if isinstance(value, dict) and list(value) != ["dtype", "shape", "data_offsets"]:
            raise Bad("fields out of order")
        return super().entry(name, value)


class Scrubbing(Strict):
    """NaNs are scrubbed to zero, signs of zero lost."""

    def read(self, buffer, entry):
        payload = super().read(buffer, entry)
        if entry[0] not in ("F16", "F32"):
            return payload
        values = np.frombuffer(payload, {"F16": "<f2", "F32": "<f4"}[entry[0]])
        return (np.nan_to_num(values) + 0).astype(values.dtype).tobytes()


class Lazy(Strict):
    """Checks ranges only when a tensor is read."""

    def ranges(self, tensors, _buffer):
        self.checked = tensors

    def read(self, buffer, entry):
        super().ranges(self.checked, buffer)
        return super().read(buffer, entry)


class EmptyOnError(Strict):
    """Whatever goes wrong, the file is one without tensors."""

    def open(self, data):
        try:
            return super().open(data)
        except Bad:
            return {}, {}, b""


class BothKept(Strict):
    """Of two equal keys both are kept, the second under a name of the parser's own."""

    def pairs(self, pairs):
        kept = {}
        for key, value in pairs:
            kept[f"{key}#2" if key in kept else key] = value
        return kept

    def ranges(self, tensors, buffer):
        pass

    def entries(self, root):
        twice = root.pop("__metadata__#2", None)
        tensors, metadata = super().entries(root)
        return tensors, {"blocks": "2"} if twice else metadata


class Stripping(Strict):
    """White space around the header is taken away before its length is used."""

    def split(self, data):
        header, buffer = super().split(data)
        start = 8 + len(header.strip())
        return header.strip(), data[start : start + len(buffer)]


BROKEN = (
    EmptyOnError, BothKept, Stripping,
    Naive, NoRanges, NoHoles, NoTail, NoEnd, NoSize, Wrapping, WrappingBits, Narrow, Floats, Narrow32Product,
    Length32, LengthAbsolute, LengthEitherEnd, BraceSeeker, CString, Replacing, Detecting, Relaxed, FirstValue,
    Defaults, LooseDtypes, Unknown8, LastWins, Lists, Stringly, Folding, Normalising, NoDunder, Rebasing,
    Aligned, FileOrder, NoEmpty, OnlyWeights, Padded, FieldOrder, Scrubbing, Lazy,
)  # fmt: skip
UNCLEAR = (Vague, Nameless, Internal, Refusing)
PARSERS = {parser.__name__: parser for parser in (Strict, *BROKEN, *UNCLEAR)}
