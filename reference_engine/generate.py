"""Generation: one prefill, then one step a token, until a stop id or the limit. Nothing outlives a request."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from reference_engine.errors import ContextTooLong, InvalidArgument, NonFiniteLogits

if TYPE_CHECKING:
    from reference_engine.decode import Decoder, Decoding
    from reference_engine.model import SafeTensorsCudaModel


@dataclass(frozen=True)
class GenerationRequest:
    """What to generate.

    Attributes:
        prompt_ids: Token ids of the prompt, at least one.
        max_tokens: New tokens at most; fewer if the model's positions run out.
        temperature: 0 is greedy, the lowest id first among equal logits; above it, sampling.
        top_p: Sample from the smallest set of tokens whose probabilities reach this sum.
        seed: Of the sampling; greedy generation has none.
        ignore_eos: Do not stop at stop ids.
    """

    prompt_ids: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    ignore_eos: bool = False


@dataclass
class Outcome:
    """How a generation went; complete once its iterator is exhausted.

    Attributes:
        prompt_tokens: Length of the prompt.
        ids: New ids, without the stop id.
        finish_reason: `stop` or `length`.
        stop_id: The id that ended it, if one did.
        positions: Token positions pushed through the model for these ids; steps computed in vain past a stop
            id, before it was looked at, are not among them.
        prefill_seconds: From the request to the first new id.
        decode_seconds: From then to the end.
    """

    prompt_tokens: int
    ids: list[int] = field(default_factory=list)
    finish_reason: str = "length"
    stop_id: int | None = None
    positions: int = 0
    prefill_seconds: float = 0.0
    decode_seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Decoding rate, without the first token, which the prefill yields; 0 below two tokens."""
        steps = self.positions - self.prompt_tokens
        return steps / self.decode_seconds if steps > 0 and self.decode_seconds else 0.0

    @property
    def inference_seconds(self) -> float:
        """From the request to its last id."""
        return self.prefill_seconds + self.decode_seconds


def generate(
    model: SafeTensorsCudaModel, request: GenerationRequest, id_limit: int | None = None, decoder: Decoder | None = None
) -> tuple[Outcome, Iterator[int]]:
    """Check a request and start it.

    Args:
        model: A loaded model.
        request: What to generate.
        id_limit: Ids from here on are never produced: rows that pad the vocabulary beyond the tokenizer.
        decoder: How to decode; the model's own if None.

    Returns:
        The outcome, filled in as the iterator over new ids advances, and that iterator.

    Raises:
        InvalidArgument: The request is malformed.
        ContextTooLong: The prompt has more tokens than the model has positions.
        OutOfDeviceMemory: No room for the KV cache.
    """
    _check(model, request)
    outcome = Outcome(len(request.prompt_ids))
    return outcome, _run(model, request, outcome, id_limit, decoder or model.decoder)


def _check(model: SafeTensorsCudaModel, request: GenerationRequest) -> None:
    model.check_ids(request.prompt_ids)
    if request.max_tokens < 0:
        raise InvalidArgument("max_tokens", f"{request.max_tokens} is negative")
    if not 0 <= request.temperature < math.inf:
        raise InvalidArgument("temperature", f"{request.temperature} is not a number of at least 0")
    if not 0 < request.top_p <= 1:
        raise InvalidArgument("top_p", f"{request.top_p} is not in (0, 1]")
    if len(request.prompt_ids) > model.config.max_positions:
        raise ContextTooLong(len(request.prompt_ids), model.config.max_positions)


def _run(
    model: SafeTensorsCudaModel, request: GenerationRequest, outcome: Outcome, id_limit: int | None, decoder: Decoder
) -> Iterator[int]:
    prompt = len(request.prompt_ids)
    # The last new id is never pushed, so one more id than free positions can be produced.
    limit = min(request.max_tokens, model.config.max_positions - prompt + 1)
    if limit == 0:
        return
    stop_ids = frozenset(() if request.ignore_eos else model.config.eos_token_ids)
    choose = _greedy_ids if request.temperature == 0 else _sampled_ids
    started = first = time.perf_counter()
    with decoder.begin(model, request.prompt_ids, prompt + limit - 1, id_limit) as decoding:
        for token in choose(decoding, request, limit, decoder.read_every):
            if not outcome.positions:
                first = time.perf_counter()
                outcome.prefill_seconds = first - started
            outcome.positions = prompt + len(outcome.ids)
            outcome.decode_seconds = time.perf_counter() - first
            if token in stop_ids:
                outcome.finish_reason, outcome.stop_id = "stop", token
                return
            outcome.ids.append(token)
            yield token


def _greedy_ids(decoding: Decoding, _: GenerationRequest, limit: int, read_every: int) -> Iterator[int]:
    """The best ids, `limit` of them; the device runs up to `read_every` steps ahead of what is looked at."""
    token = best_id(decoding.logits[: decoding.id_limit], decoding.position - 1)
    yield token
    decoding.feed(token)
    left = limit - 1
    while left:
        begin, steps = decoding.position, min(read_every, left)
        for position, (best, peak) in enumerate(decoding.greedy(steps), begin):
            yield _finite(best, peak, position)
        left -= steps


def _sampled_ids(decoding: Decoding, request: GenerationRequest, limit: int, _: int) -> Iterator[int]:
    """Drawn ids, `limit` of them, each chosen on the host."""
    random = torch.Generator().manual_seed(request.seed % 2**63)
    logits = decoding.logits
    for drawn in range(1, limit + 1):
        token = _sample(logits[: decoding.id_limit], decoding.position - 1, request, random)
        yield token
        if drawn < limit:
            decoding.feed(token)
            logits = decoding.step()


def best_id(logits: torch.Tensor, position: int) -> int:
    """The lowest index among equal maxima, as `argmax` documents.

    Raises:
        NonFiniteLogits: There is no best one.
    """
    best = logits.argmax()
    token, peak = torch.stack((best.double(), logits[best].double())).tolist()
    return _finite(int(token), peak, position)


def _finite(token: int, peak: float, position: int) -> int:
    """The id, whose logit must be a number."""
    if not math.isfinite(peak):
        raise NonFiniteLogits(position)
    return token


def _sample(logits: torch.Tensor, position: int, request: GenerationRequest, random: torch.Generator) -> int:
    """Inverse of the cumulated probabilities, on the host in float64: one seed, one text, on any device."""
    values = logits.cpu().double()
    if not values.max().isfinite():
        raise NonFiniteLogits(position)
    shares, order = (values / request.temperature).softmax(dim=-1).sort(descending=True, stable=True)
    cumulated = shares.cumsum(dim=-1)
    kept = int((cumulated - shares < request.top_p).sum())
    drawn = torch.rand(1, generator=random, dtype=torch.float64) * cumulated[kept - 1]
    return int(order[min(int(torch.searchsorted(cumulated, drawn)), kept - 1)])
