import json

import numpy as np
import pytest
from msgspec.structs import replace

from conformance.corpus.checkpoint import fingerprint
from conformance.corpus.fixture import MODEL_DIR, card
from conformance.corpus.fixture.accuracy import SKILLS
from conformance.corpus.fixture.cases import fixture_cases
from conformance.corpus.fixture.golden import WeakGoldenError, require_strong
from conformance.corpus.goldens import golden_paths, load_goldens
from conformance.corpus.models import resolve_model
from conformance.corpus.variants import read_checkpoint


def test_it_is_the_model_tried_by_default():
    assert resolve_model().directory == MODEL_DIR
    assert resolve_model().goldens_directory == MODEL_DIR


def test_weights_and_goldens_keep_to_their_sizes():
    assert fingerprint(MODEL_DIR).weight_bytes <= 10_000_000
    assert sum(path.stat().st_size for d in ("F32", "F16", "BF16") for path in golden_paths(MODEL_DIR, d)) <= 2_000_000


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_goldens_belong_to_the_weights_and_are_strong(dtype):
    goldens = load_goldens(MODEL_DIR, dtype)
    goldens.require(fingerprint(MODEL_DIR).sha256)
    require_strong(goldens)


def test_a_thin_or_wrong_golden_is_refused():
    goldens = load_goldens(MODEL_DIR)
    first, *others = goldens.run.cases
    for weak in (replace(first, margins=(3.9, *first.margins[1:])), replace(first, answered=False)):
        with pytest.raises(WeakGoldenError, match=first.name):
            require_strong(type(goldens)(replace(goldens.run, cases=(weak, *others)), goldens.arrays))


def test_goldens_answer_the_cases_as_they_stand_in_the_code():
    stored = {case.name: case for case in load_goldens(MODEL_DIR).run.cases}
    cases = fixture_cases().case
    assert stored.keys() == {case.name for case in cases}
    for case in cases:
        golden = stored[case.name]
        assert (golden.rows, golden.prompt, golden.messages) == (case.rows, case.prompt, case.messages)
        assert golden.expect == case.expect
        assert case.prompt_ids in {None, golden.prompt_ids}


def test_every_quality_row_has_cases_and_both_stop_ids_end_some():
    goldens = load_goldens(MODEL_DIR)
    assert len(goldens.run.cases) >= 60
    assert all(goldens.for_row(f"F-QUAL-{row:03}") for row in range(66, 81))
    stop_ids = json.loads((MODEL_DIR / "generation_config.json").read_text())["eos_token_id"]
    assert {case.stop_id for case in goldens.for_row("F-QUAL-071")} == {*stop_ids, None}
    needles = [case for case in goldens.for_row("F-QUAL-070") if len(case.prompt_ids) >= 1000]
    assert len(needles) >= 6


def test_f16_loses_little_of_the_weights():
    lost = total = 0
    for _, bits in read_checkpoint(MODEL_DIR).values():
        wide = (np.asarray(bits).astype(np.uint32) << 16).view(np.float32)
        lost += int((wide.astype(np.float16).astype(np.float32) != wide).sum())
        total += wide.size
    assert lost / total < 0.01


def test_every_skill_was_exact_on_200_fresh_prompts():
    report = json.loads((MODEL_DIR / "accuracy.json").read_text())
    assert {skill["skill"] for skill in report["skills"]} == SKILLS.keys()
    for skill in report["skills"]:
        assert skill["prompts"] == 200
        assert skill["exact"] >= 198, skill["skill"]


def test_the_page_is_what_the_measurements_say():
    assert card.CARD.read_text(encoding="utf-8") == card.render(MODEL_DIR)
