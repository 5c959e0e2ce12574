"""Chat templates: another one than the model's, one that reaches for the system, and text that is easily changed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from tokenizers import Tokenizer

from checks.support.checkpoints import copy_of
from checks.support.quality import as_messages, loaded_from
from conformance.corpus.goldens import GoldenCase
from conformance.protocol.failures import EngineRefused
from conformance.protocol.messages import ChatMessage, ModelLoaded, Render
from conformance.trial.stand import Stand

_OTHER = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' | ' }}{% endfor %}{{ 'assistant:' }}"
_SAID, _OTHER_TEXT = "hello", "user: hello | assistant:"
_REACHING = "{{ cycler.__init__.__globals__.os.system('touch \"' + '%s' + '\"') }}"
_HARD = {
    "blanks": "one  two   three\tfour",
    "lines": "one\n\n\ntwo\r\nthree",
    "compatible forms": "\uff21\uff22 \ufb01 x\u00b2 \u2460 \u00bd",
    "composed and not": "e\u0301 \u00e9",
    "beyond the first plane": "\U0001f469\u200d\U0001f4bb \U00020000",
    "marks": "\u200e\u00a0\u00ad'\"\\{{ 7 * 7 }}{% raw %}",
}


def observe_own_template(stand: Stand) -> None:
    """Observe `own_template`: the prompt of a copy of the checkpoint whose template is another one; hardening."""
    directory = _with_template(stand, "other-template", _OTHER)
    expected = _tokenizer(stand).encode(_OTHER_TEXT, add_special_tokens=False).ids
    with loaded_from(stand, directory) as model:
        rendered = stand.engine.call("chat.render", Render(model.handle, [ChatMessage("user", _SAID)]))
    stand.equal("own_template", expected=expected, observed=list(rendered.ids), hardening=True, note=_OTHER_TEXT)


def observe_reaching_template(stand: Stand) -> None:
    """Observe `harmless`: a template comes with untrusted weights, and must not run commands; hardening."""
    trace = stand.directory / "reached"
    directory = _with_template(stand, "reaching-template", _REACHING % trace)
    with suppress(EngineRefused), loaded_from(stand, directory) as model:
        stand.engine.call("chat.render", Render(model.handle, [ChatMessage("user", _SAID)]))
    stand.equal("harmless", expected=False, observed=trace.exists(), hardening=True)


def observe_hard_text(stand: Stand, model: ModelLoaded, case: GoldenCase) -> None:
    """Observe `hard_text/<what>`: text in a user's turn becomes the ids of exactly that text.

    What surrounds a turn is known from the golden prompt of a plain one. No text begins or ends with a blank, because
    a template may trim.
    """
    tokenizer = _tokenizer(stand)
    said = as_messages(case)[0].content
    before, found, after = tokenizer.decode(list(case.prompt_ids), skip_special_tokens=False).rpartition(said)
    if not found:
        stand.missing("hard_text", "the tokenizer does not give back the text of a golden prompt")
        return
    for what, text in _HARD.items():
        expected = tokenizer.encode(before + text + after, add_special_tokens=False).ids
        rendered = stand.engine.call("chat.render", Render(model.handle, [ChatMessage("user", text)]))
        stand.equal(f"hard_text/{what}", expected=expected, observed=list(rendered.ids), hardening=True)


def special_ids(stand: Stand) -> dict[str, int]:
    """The special tokens of the checkpoint's tokenizer, by their spelling."""
    content = json.loads((stand.model_directory / "tokenizer.json").read_text(encoding="utf-8"))
    return {token["content"]: token["id"] for token in content.get("added_tokens", []) if token["special"]}


def _tokenizer(stand: Stand) -> Tokenizer:
    return Tokenizer.from_file(str(stand.model_directory / "tokenizer.json"))


def _with_template(stand: Stand, name: str, source: str) -> Path:
    """A copy of the checkpoint with this template in both places where one may stand."""
    target = copy_of(stand, name)
    (target / "chat_template.jinja").write_text(source, encoding="utf-8")
    settings = target / "tokenizer_config.json"
    config = json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    settings.write_text(json.dumps(config | {"chat_template": source}), encoding="utf-8")
    return target
