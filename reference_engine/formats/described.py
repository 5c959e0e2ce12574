"""What a checkpoint says besides its tensors, as GGUF and APR need it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from reference_engine.chat import template_source
from reference_engine.config import LLAMA, QWEN2, ModelConfig, read_config
from reference_engine.errors import InvalidModel
from reference_engine.files import CONFIG, TOKENIZER
from reference_engine.formats.byte_level import Vocabulary, vocabulary_of
from reference_engine.formats.layout import is_bias

if TYPE_CHECKING:
    from reference_engine.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Described:
    """Configuration, and where there are any, vocabulary and chat template."""

    config: ModelConfig
    vocabulary: Vocabulary | None
    template: str | None

    @property
    def family(self) -> str:
        """The architecture's short name."""
        return "llama" if self.config.architecture == LLAMA else "qwen2"


def describe(checkpoint: Checkpoint) -> Described:
    """Read what lies beside a checkpoint's tensors.

    Raises:
        InvalidModel: It is malformed, or neither GGUF nor APR has words for it.
    """
    files = checkpoint.side_files
    config = read_config(files)
    unsaid = {
        "another family than Qwen2 and Llama": config.architecture not in {QWEN2, LLAMA},
        "scaled rotary frequencies": config.rope_scaling is not None,
        "sliding windows": any(window is not None for window in config.windows),
        "biases of a Llama": config.architecture == LLAMA and any(map(is_bias, checkpoint.tensors)),
    }
    for what, there in unsaid.items():
        if there:
            raise InvalidModel(files.where(CONFIG), f"{what} cannot be converted")
    found = template_source(files)
    vocabulary = vocabulary_of(files, config.vocab_size) if TOKENIZER in files else None
    return Described(config, vocabulary, found[1] if found else None)
