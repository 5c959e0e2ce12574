"""Golden runs: greedy generations and teacher-forced logits by transformers, on the CPU, attention eager.

This is the independent implementation that engines are compared with; it shares no code with any of them.
Needs the extra `golden`; everything else in this package works without transformers.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer

from conformance.corpus.checkpoint import fingerprint, read_json
from conformance.corpus.golden_cases import ForcedSequence, GoldenCaseList, GoldenPrompt, load_cases
from conformance.corpus.golden_comparison import compare_goldens
from conformance.corpus.golden_noise import rounding_noise
from conformance.corpus.goldens import (
    TOP,
    Floats,
    GoldenCase,
    GoldenForced,
    GoldenRun,
    Goldens,
    load_goldens,
    save_goldens,
)

COLUMNS = 128
ALL_COLUMNS_VOCABULARY = 2048
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


class TransformersMissing(Exception):
    """The independent implementation is not installed."""

    def __init__(self) -> None:
        super().__init__("golden runs need transformers: pip install 'falsify-inference[golden]'")


class TokenizersDisagree(Exception):
    """transformers and tokenizer.json give a prompt different ids, so no golden ids exist for it."""

    def __init__(self, case: str, text: str) -> None:
        super().__init__(f"{case}: transformers and tokenizer.json encode {text[:80]!r} differently")
        self.case = case
        self.text = text


class PromptTooLong(Exception):
    """A prompt and its answer that do not fit into the model's context."""

    def __init__(self, case: str, tokens: int, limit: int) -> None:
        super().__init__(f"{case}: {tokens} positions, and the model has {limit}")
        self.case = case
        self.tokens = tokens
        self.limit = limit


class TokenizerMissing(Exception):
    """A prompt in words for a checkpoint that has no tokenizer.json."""

    def __init__(self, case: str) -> None:
        super().__init__(f"{case}: the checkpoint has no tokenizer.json, so prompts must be given as ids")
        self.case = case


class GoldensChanged(Exception):
    """A golden run that does not repeat what is stored; carries one line per difference."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__("; ".join(differences))
        self.differences = differences


@dataclass(frozen=True)
class _Reference:
    """transformers' model and tokenizer for a checkpoint, and the ids that end a generation."""

    model: Any
    new_cache: Callable[[], Any]
    tokenizer: Any | None
    plain_tokenizer: Tokenizer | None
    stop_ids: frozenset[int]
    vocab_size: int
    max_positions: int


@dataclass(frozen=True)
class _Steps:
    """Logits [steps, vocab] in F32 and what was decided from them."""

    logits: Floats
    chosen: list[int]


def make_goldens(
    model_dir: Path,
    out_dir: Path,
    cases: GoldenCaseList | None = None,
    dtype: str = "F32",
    threads: int = 1,
) -> Goldens:
    """Run every case on a checkpoint and store the outcome in `out_dir`.

    The default cases serve any chat checkpoint. The same inputs on the same machine give the same bytes.

    Args:
        model_dir: A checkpoint directory with tokenizer.json.
        out_dir: Receives `goldens.<dtype>.json` and `.npz`.
        cases: What to run.
        dtype: Compute dtype: F32, F16 or BF16. Whole columns of logits are kept for F32 only.
        threads: Threads of torch; more are faster and may change the last bits.

    Raises:
        TransformersMissing: The extra `golden` is not installed.
        TokenizersDisagree: A prompt's ids are in doubt.
        PromptTooLong: A case does not fit into the context.
    """
    golden = golden_run(model_dir, cases or load_cases(), dtype, threads)
    return save_goldens(out_dir, golden.run, golden.arrays)


def golden_run(model_dir: Path, cases: GoldenCaseList, dtype: str = "F32", threads: int = 1) -> Goldens:
    """Run every case on a checkpoint without storing anything; arguments and errors as `make_goldens`."""
    with _deterministic(threads):
        reference = _load_reference(model_dir, dtype)
        columns = _chosen_columns(reference, dtype)
        arrays: dict[str, npt.NDArray[np.generic]] = {"columns": columns.astype(np.int32)}
        generated = [_generate(reference, case, columns, arrays) for case in cases.case]
        forced = [_force(reference, sequence, columns, arrays) for sequence in cases.forced]
    golden = Goldens(_record(model_dir, reference, dtype, generated, forced), arrays)
    if dtype != "F32":
        return golden
    noise = rounding_noise(_load_model(model_dir, torch.float64), golden)
    return Goldens(msgspec.structs.replace(golden.run, noise=noise), arrays)


def _record(
    model_dir: Path, reference: _Reference, dtype: str, generated: list[GoldenCase], forced: list[GoldenForced]
) -> GoldenRun:
    return GoldenRun(
        model_sha256=fingerprint(model_dir).sha256,
        source=_source(dtype),
        dtype=dtype,
        vocab_size=reference.vocab_size,
        arrays_sha256="",
        cases=tuple(generated),
        forced=tuple(forced),
    )


def check_goldens(model_dir: Path, stored_dir: Path, cases: GoldenCaseList | None = None, dtype: str = "F32") -> None:
    """Repeat a golden run and compare with what is stored: ids must be equal, F32 logits within 1e-4.

    Raises:
        GoldensForAnotherModel: The stored goldens belong to other weights.
        GoldensChanged: Something differs.
    """
    stored = load_goldens(stored_dir, dtype)
    stored.require(fingerprint(model_dir).sha256)
    differences = compare_goldens(stored, golden_run(model_dir, cases or load_cases(), dtype))
    if differences:
        raise GoldensChanged(differences)


@contextlib.contextmanager
def _deterministic(threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise TransformersMissing from error


def _source(dtype: str) -> str:
    return f"transformers {_transformers().__version__}, torch {torch.__version__}, {dtype}, CPU, eager"


def _load_model(model_dir: Path, dtype: torch.dtype) -> Any:
    transformers = _transformers()
    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoModelForCausalLM.from_pretrained(
        model_dir, dtype=dtype, attn_implementation="eager", local_files_only=True
    ).eval()


def _load_reference(model_dir: Path, dtype: str) -> _Reference:
    transformers = _transformers()
    tokenizer_file = model_dir / "tokenizer.json"
    has_tokenizer = tokenizer_file.is_file()
    model = _load_model(model_dir, DTYPES[dtype])
    return _Reference(
        model=model,
        new_cache=transformers.DynamicCache,
        tokenizer=transformers.AutoTokenizer.from_pretrained(model_dir, local_files_only=True)
        if has_tokenizer
        else None,
        plain_tokenizer=Tokenizer.from_file(str(tokenizer_file)) if has_tokenizer else None,
        stop_ids=_stop_ids(model_dir),
        vocab_size=int(model.config.vocab_size),
        max_positions=int(model.config.max_position_embeddings),
    )


def _stop_ids(model_dir: Path) -> frozenset[int]:
    """The eos ids of generation_config.json, or else of config.json: one, a list, or none."""
    generation = model_dir / "generation_config.json"
    found = read_json(generation).get("eos_token_id") if generation.is_file() else None
    if found is None:
        found = read_json(model_dir / "config.json").get("eos_token_id")
    return frozenset(found if isinstance(found, list) else [] if found is None else [found])


def _chosen_columns(reference: _Reference, dtype: str) -> npt.NDArray[np.int64]:
    """A seeded spread of vocabulary columns with both ends and the stop ids; none for reduced precision."""
    if dtype != "F32":
        return np.empty(0, dtype=np.int64)
    size = reference.vocab_size
    fixed = {0, size - 1, *reference.stop_ids}
    drawn = np.random.Generator(np.random.PCG64(size)).permutation(size)
    spread = [int(column) for column in drawn if int(column) not in fixed]
    return np.array(sorted([*fixed, *spread[: max(COLUMNS - len(fixed), 0)]]), dtype=np.int64)


def _generate(
    reference: _Reference,
    case: GoldenPrompt,
    columns: npt.NDArray[np.int64],
    arrays: dict[str, npt.NDArray[np.generic]],
) -> GoldenCase:
    case, prompt_ids = _render(reference, case)
    if len(prompt_ids) + case.max_tokens > reference.max_positions:
        raise PromptTooLong(case.name, len(prompt_ids) + case.max_tokens, reference.max_positions)
    steps = _greedy(reference, prompt_ids, case.max_tokens)
    stop_id = steps.chosen[-1] if steps.chosen[-1] in reference.stop_ids else None
    ids = steps.chosen if stop_id is None else steps.chosen[:-1]
    text = _decode(reference, ids)
    whole = case.all_columns and reference.vocab_size <= ALL_COLUMNS_VOCABULARY and len(columns) > 0
    margins = _keep(arrays, case.name, steps.logits, None if whole else columns)
    return GoldenCase(
        name=case.name,
        rows=case.rows,
        max_tokens=case.max_tokens,
        prompt_ids=tuple(prompt_ids),
        ids=tuple(ids),
        text=text,
        margins=margins,
        stop_id=stop_id,
        prompt=case.prompt if case.cut_to is None else None,
        messages=case.messages,
        raw=case.raw,
        expect=case.expect,
        answered=case.expect is None or case.expect.met_by(text, stopped=stop_id is not None),
    )


def _decode(reference: _Reference, ids: list[int]) -> str:
    if reference.tokenizer is None:
        return ""
    text = reference.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return str(text)


def _render(reference: _Reference, case: GoldenPrompt) -> tuple[GoldenPrompt, list[int]]:
    """The case with its filler written out, and the ids that are fed to the model."""
    if case.prompt_ids is not None:
        return case, list(case.prompt_ids)
    count, filled = 0, case.filled(0)
    ids = _encode(reference, filled)
    while len(ids) < case.min_tokens:
        per_filler = max(len(_encode(reference, case.filled(count + 8))) - len(ids), 1) / 8
        count += max(int((case.min_tokens - len(ids)) / per_filler), 1)
        filled = case.filled(count)
        ids = _encode(reference, filled)
    return filled, ids[: case.cut_to]


def _encode(reference: _Reference, case: GoldenPrompt) -> list[int]:
    if reference.tokenizer is None or reference.plain_tokenizer is None:
        raise TokenizerMissing(case.name)
    if case.raw and case.prompt is not None:
        text = case.prompt
        ids = reference.tokenizer.encode(text, add_special_tokens=False)
    else:
        turns = [{"role": turn.role, "content": turn.content} for turn in case.messages or ()]
        if case.prompt is not None:
            turns = [{"role": "user", "content": case.prompt}]
        options = {"add_generation_prompt": True}
        text = reference.tokenizer.apply_chat_template(turns, tokenize=False, **options)
        ids = reference.tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, **options)
    if list(ids) != reference.plain_tokenizer.encode(text, add_special_tokens=False).ids:
        raise TokenizersDisagree(case.name, text)
    return list(ids)


def _greedy(reference: _Reference, prompt_ids: list[int], max_tokens: int) -> _Steps:
    """Greedy decoding with transformers' cache; the lowest index wins among equal maxima."""
    fed, cache = torch.tensor([prompt_ids]), reference.new_cache()
    keyword = "cache" if "cache" in inspect.signature(reference.model.forward).parameters else "past_key_values"
    rows: list[Floats] = []
    chosen: list[int] = []
    while len(chosen) < max_tokens and not (chosen and chosen[-1] in reference.stop_ids):
        output = reference.model(input_ids=fed, use_cache=True, logits_to_keep=1, **{keyword: cache})
        rows.append(output.logits[0, -1].float().numpy())
        chosen.append(int(rows[-1].argmax()))
        fed = torch.tensor([[chosen[-1]]])
    return _Steps(np.stack(rows), chosen)


def _force(
    reference: _Reference,
    sequence: ForcedSequence,
    columns: npt.NDArray[np.int64],
    arrays: dict[str, npt.NDArray[np.generic]],
) -> GoldenForced:
    if sequence.length > reference.max_positions:
        raise PromptTooLong(sequence.name, sequence.length, reference.max_positions)
    plain = np.array(_plain_ids(reference))
    ids = np.random.Generator(np.random.PCG64(sequence.seed)).choice(plain, sequence.length)
    positions = sorted({*range(sequence.stride - 1, sequence.length, sequence.stride), sequence.length - 1})
    output = reference.model(
        input_ids=torch.from_numpy(ids)[None], use_cache=False, logits_to_keep=torch.tensor(positions)
    )
    logits = output.logits[0].float().numpy()
    margins = _keep(arrays, sequence.name, logits, columns)
    return GoldenForced(
        name=sequence.name,
        rows=sequence.rows,
        ids=tuple(ids.tolist()),
        positions=tuple(positions),
        argmax=tuple(logits.argmax(axis=1).tolist()),
        margins=margins,
    )


def _plain_ids(reference: _Reference) -> list[int]:
    """Ids of ordinary tokens: neither special nor padding; all of them where there is no tokenizer."""
    if reference.plain_tokenizer is None:
        return list(range(reference.vocab_size))
    special = reference.plain_tokenizer.get_added_tokens_decoder()
    return [index for index in range(reference.plain_tokenizer.get_vocab_size()) if index not in special]


def _keep(
    arrays: dict[str, npt.NDArray[np.generic]],
    name: str,
    logits: Floats,
    columns: npt.NDArray[np.int64] | None,
) -> tuple[float, ...]:
    """Store the top logits and the columns (all when None) of each step; the margins of the steps."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :TOP]
    top = np.take_along_axis(logits, order, axis=1)
    arrays[f"{name}/top_ids"] = order.astype(np.int32)
    arrays[f"{name}/top_logits"] = top
    arrays[f"{name}/logits"] = logits if columns is None else logits[:, columns]
    return tuple(round(float(margin), 6) for margin in top[:, 0] - top[:, 1])
