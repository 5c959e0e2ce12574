"""The model on trial and its golden answers: asking as the golden run was asked, and comparing what comes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from conformance.corpus.golden_cases import has_word
from conformance.corpus.goldens import GoldenCase, GoldenForced
from conformance.observations import LogitsDistance, Tokens
from conformance.protocol.client import Engine
from conformance.protocol.messages import (
    ChatMessage,
    Generate,
    Generation,
    Handle,
    Logits,
    ModelLoad,
    ModelLoaded,
    TensorData,
)
from conformance.protocol.tensors import BrokenTensor
from conformance.trial.stand import NotTried, Stand

_TELLING = 24
UNTOLD = -1
"""Stands for a stop id that the engine does not tell."""


@contextmanager
def loaded_from(stand: Stand, path: Path, *, dtype: str | None = "F32", device: str = "") -> Iterator[ModelLoaded]:
    """Another checkpoint on the trial's device (or a named one), unloaded afterwards."""
    model = stand.engine.call("model.load", ModelLoad(str(path), device or stand.model_device, dtype))
    try:
        yield model
    finally:
        if stand.engine.alive:
            stand.engine.call("model.unload", Handle(model.handle))


@contextmanager
def loaded_model(stand: Stand, engine: Engine | None = None, *, dtype: str | None = "F32") -> Iterator[ModelLoaded]:
    """The checkpoint on trial on the trial's device, computed in F32 unless told otherwise, unloaded afterwards."""
    engine = engine or stand.engine
    model = engine.call("model.load", ModelLoad(str(stand.model_directory), stand.model_device, dtype))
    try:
        yield model
    finally:
        if engine.alive:
            engine.call("model.unload", Handle(model.handle))


def golden_cases(stand: Stand, row: str | None = None) -> Sequence[GoldenCase]:
    """The golden generations of this row that the golden run itself answered.

    Raises:
        NotTried: there is none.
    """
    cases = stand.goldens.for_row(row or stand.row.id)
    if not cases:
        raise NotTried(f"the golden run of {stand.plan.model.name} answers none of this row's prompts")
    return cases


def cheapest(cases: Sequence[GoldenCase]) -> list[GoldenCase]:
    """The cases, those with the fewest tokens to push and to choose first: a choice for rehearsals."""
    return sorted(cases, key=lambda case: len(case.prompt_ids) + 20 * len(case.ids))


def first_golden(stand: Stand) -> GoldenCase:
    """A golden generation of at least two ids.

    Raises:
        NotTried: there is none.
    """
    for case in stand.goldens.run.cases:
        if len(case.ids) > 1:
            return case
    raise NotTried("no golden generation of two ids or more")


def chat_golden(stand: Stand) -> tuple[GoldenCase, str]:
    """A golden answer to a single user turn through the chat template, and the user's text.

    Its answer is one line of some two dozen characters: "4" is found by accident in what a program prints around it.

    Raises:
        NotTried: there is none that the golden run ended by itself.
    """
    plain = [case for case in stand.goldens.run.cases if _is_plain_turn(case)]
    if not plain:
        raise NotTried("no golden answer to a single user turn that ends by itself")
    chosen = min(plain, key=lambda case: (_is_awkward(case.text.strip()), abs(len(case.text.strip()) - _TELLING)))
    return chosen, as_messages(chosen)[0].content


def beyond_ascii_golden(stand: Stand) -> GoldenCase | None:
    """A one-line golden answer to a single user turn, with most characters of several bytes; None if none has any."""
    plain = [case for case in stand.goldens.run.cases if _is_plain_turn(case) and "\n" not in case.text.strip()]
    chosen = max(plain, key=lambda case: len(case.text.encode()) - len(case.text), default=None)
    return chosen if chosen is not None and not chosen.text.isascii() else None


def _is_awkward(text: str) -> bool:
    """Whether a terminal may show it in pieces."""
    return "\n" in text or not text.isascii()


def _is_plain_turn(case: GoldenCase) -> bool:
    turns = as_messages(case)
    one = len(turns) == 1 and turns[0].role == "user" and bool(turns[0].content.strip())
    return one and "\n" not in turns[0].content and case.stop_id is not None and bool(case.text.strip())


def as_messages(case: GoldenCase) -> list[ChatMessage]:
    """The conversation that a case was asked through the chat template; empty for a raw one."""
    if case.messages is not None:
        return list(case.messages)
    return [] if case.raw or case.prompt is None else [ChatMessage("user", case.prompt)]


def request_of(model: ModelLoaded, case: GoldenCase) -> Generate:
    """The request that asks what the golden run was asked, in the same way."""
    if case.raw and case.prompt is not None:
        return Generate(model.handle, case.max_tokens, prompt=case.prompt)
    if turns := as_messages(case):
        return Generate(model.handle, case.max_tokens, messages=turns)
    return Generate(model.handle, case.max_tokens, prompt_ids=list(case.prompt_ids))


def ask(stand: Stand, model: ModelLoaded, case: GoldenCase) -> Generation:
    """Generate what the golden run generated."""
    answer: Generation = stand.engine.call("generate", request_of(model, case))
    return answer


def observe_ids(stand: Stand, model: ModelLoaded, case: GoldenCase, answer: Generation, *, name: str = "ids") -> None:
    """Observe `<name>/<case>`: every decision, the stop id included, under the near-tie rule with re-anchoring."""
    expected, observed = list(case.decisions), decisions_of(answer)
    if observed[-1:] == [UNTOLD] and case.stop_id is not None:
        expected[-1] = UNTOLD
    step = next((i for i, (a, b) in enumerate(zip(expected, observed, strict=False)) if a != b), None)
    reanchored = None
    if step is not None:
        forced = [*case.prompt_ids, *expected[: step + 1]]
        left = len(expected) - step - 1
        again = Generate(model.handle, max(left, 1), prompt_ids=forced)
        reanchored = decisions_of(stand.engine.call("generate", again))[:left]
    stand.observe(
        Tokens(
            name=f"{name}/{case.name}",
            expected=expected,
            observed=observed,
            margins=list(case.margins),
            reanchored=reanchored,
            note=answer.text[:200],
        )
    )


def decisions_of(answer: Generation) -> list[int]:
    """The ids that were chosen, and the stop id where one ended the generation, or `UNTOLD`.

    An engine behind a text interface does not say which id it was; F-QUAL-071 asks for it.
    """
    if answer.finish_reason == "stop" and answer.stop_id is None:
        return [*answer.ids, UNTOLD]
    return [*answer.ids, *([answer.stop_id] if answer.stop_id is not None else [])]


def observe_logits(stand: Stand, name: str, model: ModelLoaded, case: GoldenCase | GoldenForced) -> None:
    """Observe teacher-forced logits against golden ones at every decision of the case."""
    stand.observe(distance(stand, name, logits_at(stand, model, case), case))


def logits_at(stand: Stand, model: ModelLoaded, case: GoldenCase | GoldenForced) -> np.ndarray:
    """The engine's logits [decisions, vocabulary] where the golden run kept its own."""
    if isinstance(case, GoldenForced):
        return _logits(stand, model, Logits(model.handle, list(case.ids)))[list(case.positions)]
    ids = [*case.prompt_ids, *case.ids]
    return _logits(stand, model, Logits(model.handle, ids, last=len(case.ids) + 1))[: len(case.decisions)]


def _logits(stand: Stand, model: ModelLoaded, request: Logits) -> np.ndarray:
    answer: TensorData = stand.engine.call("model.logits", request)
    wanted = [request.last or len(request.ids), model.config.vocab_size]
    if answer.dtype != "F32" or answer.shape != wanted:
        raise BrokenTensor(answer.path, f"logits are {answer.dtype}{answer.shape}, asked for F32{wanted}")
    return stand.read_tensor(answer)


def distance(stand: Stand, name: str, observed: np.ndarray, case: GoldenCase | GoldenForced) -> LogitsDistance:
    """How far the engine's logits are from the golden ones, over the stored columns and the golden top ones."""
    columns, golden = stand.goldens.logits(case)
    top_ids, top = stand.goldens.top(case)
    wanted = case.argmax if isinstance(case, GoldenForced) else case.decisions
    seen = np.concatenate([observed[:, columns], np.take_along_axis(observed, top_ids, axis=1)], axis=1)
    known = np.concatenate([golden, top], axis=1)
    return LogitsDistance(
        name=name,
        positions=len(wanted),
        max_abs=float(np.abs(seen - known).max()),
        min_cosine=float(_cosines(seen, known).min()),
        argmax_expected=list(wanted),
        argmax_observed=[int(best) for best in observed.argmax(axis=1)],
        margins=list(case.margins),
        noise=stand.goldens.run.noise,
    )


def between(name: str, first: np.ndarray, second: np.ndarray, noise: float | None = None) -> LogitsDistance:
    """The engine against itself, on two processors or from two files; the margins are those of the first."""
    ordered = np.sort(first, axis=1)
    return LogitsDistance(
        name=name,
        positions=len(first),
        max_abs=float(np.abs(first - second).max()),
        min_cosine=float(_cosines(first, second).min()),
        argmax_expected=[int(best) for best in first.argmax(axis=1)],
        argmax_observed=[int(best) for best in second.argmax(axis=1)],
        margins=[float(margin) for margin in ordered[:, -1] - ordered[:, -2]],
        noise=noise,
    )


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    left, right = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return np.where(norms > 0, (left * right).sum(axis=1) / np.where(norms > 0, norms, 1), 0.0)


def missing_words(case: GoldenCase, text: str) -> list[str]:
    """Words that the golden answer holds by demand and this text lacks, as whole words."""
    return [word for word in (case.expect.contains if case.expect else ()) if not has_word(text, word)]


def whole_text(case: GoldenCase, text: str) -> str:
    """The text without a character that the length limit cut in two: whether to show its ruin is a matter of taste."""
    return text if case.stop_id is not None else text.rstrip("\ufffd")
