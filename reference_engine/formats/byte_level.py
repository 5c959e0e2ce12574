"""tokenizer.json of byte-level BPE tokenizers, from the lists that GGUF and APR keep, and back to them.

Both formats name the way text is split before merging (`pre`) and leave the rest unsaid: one name, one split,
one normalizer. What a tokenizer.json says beyond that cannot be written in these formats and is refused.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from reference_engine.errors import InvalidModel, quote
from reference_engine.files import TOKENIZER, SideFiles

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_WHOLE = _BYTE_LEVEL | {"use_regex": True}
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _sequence(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(parts)}


_QWEN2_SPLIT = {"type": "Split", "pattern": {"Regex": _QWEN2}, "behavior": "Isolated", "invert": False}
SPLITS: dict[str, dict[str, Any]] = {
    "qwen2": _sequence(_QWEN2_SPLIT, _BYTE_LEVEL | {"use_regex": False}),
    "smollm": _sequence({"type": "Digits", "individual_digits": True}, _WHOLE),
    "gpt-2": _WHOLE,
}
NORMALIZERS: dict[str, dict[str, Any] | None] = {"qwen2": {"type": "NFC"}, "smollm": None, "gpt-2": None}
_PLAIN_BPE = {"dropout": None, "ignore_merges": False, "byte_fallback": False}
_NO_AFFIXES = {"continuing_subword_prefix": None, "end_of_word_suffix": None, "unk_token": None}


class Vocabulary(NamedTuple):
    """A byte-level BPE: tokens by id, what kind each is, merges as pairs joined by a space, name of the split."""

    tokens: list[str]
    types: list[int]
    merges: list[str]
    pre: str


def tokenizer_json(path: str, vocabulary: Vocabulary) -> bytes:
    """The tokenizer.json of a vocabulary; tokens of kind UNUSED have ids and no text.

    Raises:
        InvalidModel: The split is unknown, the lists do not fit, or a token or merge makes no sense.
    """
    tokens, types, merges, pre = vocabulary
    if pre not in SPLITS:
        raise InvalidModel(path, f"its pre-tokenizer {quote(pre)} is none of {', '.join(SPLITS)}")
    if len(types) != len(tokens):
        raise InvalidModel(path, f"it has {len(tokens)} tokens and {len(types)} token types")
    for merge in merges:
        if merge.count(" ") != 1:
            raise InvalidModel(path, f"merge {quote(merge)} is not two tokens and a space")
    ids = {token: index for index, (token, kind) in enumerate(zip(tokens, types, strict=True)) if kind != UNUSED}
    if len(ids) != sum(kind != UNUSED for kind in types):
        raise InvalidModel(path, "a token is in its vocabulary twice")
    added = [_added(i, tokens[i], kind) for i, kind in enumerate(types) if kind in {CONTROL, USER_DEFINED}]
    model = {"type": "BPE", "fuse_unk": False, "vocab": ids, "merges": [merge.split(" ") for merge in merges]}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": NORMALIZERS[pre],
        "pre_tokenizer": SPLITS[pre],
        "post_processor": None,
        "decoder": _WHOLE,
        "model": model | _PLAIN_BPE | _NO_AFFIXES,
    }
    return json.dumps(content).encode()


def _added(index: int, token: str, kind: int) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": index, "content": token, "special": kind == CONTROL, **flags}


def vocabulary_of(files: SideFiles, size: int) -> Vocabulary:
    """The vocabulary of a checkpoint's tokenizer.json, filled up to `size` tokens.

    Raises:
        InvalidModel: The tokenizer says something that GGUF and APR have no words for.
        FileNotFound: There is no tokenizer.json.
    """
    path, content = files.where(TOKENIZER), files.read_json(TOKENIZER)
    try:
        return _vocabulary(path, content, size)
    except (LookupError, TypeError, AttributeError) as error:
        raise InvalidModel(path, f"it is not a tokenizer: {type(error).__name__} {error}") from None


def _vocabulary(path: str, content: dict[str, Any], size: int) -> Vocabulary:
    model, added = content["model"], content["added_tokens"]
    split, normalizer = content["pre_tokenizer"], content["normalizer"]
    pre = next((name for name in SPLITS if SPLITS[name] == split and NORMALIZERS[name] == normalizer), None)
    plain = all(model.get(key, value) == value for key, value in (_PLAIN_BPE | _NO_AFFIXES).items())
    stripped = any(token["lstrip"] or token["rstrip"] or token["single_word"] for token in added)
    post = (content.get("post_processor") or {}).get("type", "ByteLevel")
    if pre is None or model["type"] != "BPE" or not plain or stripped or post != "ByteLevel":
        cause = f"it is no plain byte-level BPE split as in {', '.join(SPLITS)}, which is all these formats can say"
        raise InvalidModel(path, cause)
    if any(not 0 <= index < size for index in (*model["vocab"].values(), *(token["id"] for token in added))):
        raise InvalidModel(path, f"a token's id is not below the model's {size} rows")
    tokens, types = [f"[PAD{index}]" for index in range(size)], [UNUSED] * size
    for token, index in model["vocab"].items():
        tokens[index], types[index] = token, NORMAL
    for token in added:
        tokens[token["id"]] = token["content"]
        types[token["id"]] = CONTROL if token["special"] else USER_DEFINED
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    return Vocabulary(tokens, types, merges, pre)
