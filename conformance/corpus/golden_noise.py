"""How much of a golden logit is rounding: the F32 golden run against the same model computed in F64.

Two right F32 engines may differ by a few times this much, since each rounds in an order of its own; how many times
is a threshold. It depends on the checkpoint: more layers and larger sums round more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from conformance.corpus.goldens import GoldenCase, GoldenForced, Goldens


def rounding_noise(model: Any, goldens: Goldens) -> float:
    """The largest distance of a stored logit from the F64 one, over every decision of every case.

    Answers are fed and not generated again, so an F64 run that would choose otherwise is compared all the same.

    Args:
        model: The checkpoint in transformers, in float64.
        goldens: A golden run in F32.
    """
    return max((_distance(model, goldens, case) for case in goldens.by_name.values()), default=0.0)


def _distance(model: Any, goldens: Goldens, case: GoldenCase | GoldenForced) -> float:
    exact = _logits(model, case)
    columns, stored = goldens.logits(case)
    top_ids, top = goldens.top(case)
    kept = np.abs(exact[:, columns] - stored).max(initial=0.0)
    return float(max(kept, np.abs(np.take_along_axis(exact, top_ids, axis=1) - top).max()))


@torch.inference_mode()
def _logits(model: Any, case: GoldenCase | GoldenForced) -> npt.NDArray[np.float64]:
    """F64 logits [decisions, vocab]."""
    if isinstance(case, GoldenForced):
        ids, positions = case.ids, list(case.positions)
    else:
        ids = (*case.prompt_ids, *case.ids)
        positions = list(range(len(case.prompt_ids) - 1, len(case.prompt_ids) - 1 + len(case.decisions)))
    output = model(input_ids=torch.tensor([ids]), use_cache=False, logits_to_keep=torch.tensor(positions))
    return np.asarray(output.logits[0].numpy(), dtype=np.float64)
