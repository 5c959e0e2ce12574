"""Text to ids and back, by the `tokenizers` library on the checkpoint's own tokenizer.json."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenizers import Tokenizer as Backend
from tokenizers.decoders import DecodeStream

from reference_engine.errors import InvalidArgument, InvalidModel
from reference_engine.files import TOKENIZER, SideFiles

MAX_TOKENIZER_BYTES = 256 << 20
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """The checkpoint's tokenizer.

    Args:
        files: The files of a checkpoint, tokenizer.json among them.

    Raises:
        InvalidModel: The file is not a tokenizer.
        FileNotFound, PermissionDenied, ReadFailed: It cannot be read.
    """

    def __init__(self, files: SideFiles) -> None:
        raw = files.read(TOKENIZER, MAX_TOKENIZER_BYTES)
        try:
            self._backend = Backend.from_buffer(raw)
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception
            raise InvalidModel(files.where(TOKENIZER), f"it is not a tokenizer: {error}") from None
        self._backend.no_truncation()
        self._backend.no_padding()
        added = self._backend.get_added_tokens_decoder()
        self.special_tokens = {token.content: id_ for id_, token in added.items() if token.special}
        vocabulary = self._backend.get_vocab(with_added_tokens=True)
        # One more than the highest id that has text; a model's padded ids lie at and above it.
        self.id_limit = max(vocabulary.values(), default=-1) + 1

    def encode(self, text: str, *, add_special: bool = False, allow_special: bool = True) -> list[int]:
        """Ids of `text`.

        Args:
            text: Any text.
            add_special: Let the tokenizer's own template add its special tokens (a BOS, for some).
            allow_special: Read a special token's spelling in `text` as that token; otherwise as plain text.

        Raises:
            InvalidArgument: The text holds lone surrogates.
        """
        self._backend.encode_special_tokens = not allow_special
        try:
            return list(self._backend.encode(text, add_special_tokens=add_special).ids)
        except (TypeError, UnicodeEncodeError):
            raise InvalidArgument("text", "it is not valid Unicode") from None

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the whole sequence, special tokens left out."""
        return str(self._backend.decode(list(ids), skip_special_tokens=True))

    def decode_complete(self, ids: Sequence[int]) -> str:
        """Like `decode`, without the start of a character whose last bytes were not generated."""
        return self.decode(ids).rstrip(REPLACEMENT)

    def stream(self) -> Callable[[int], str]:
        """A decoder of one id after the other: the new text that each completes, empty while a character is not."""
        decoder = DecodeStream(skip_special_tokens=True)
        return lambda token: decoder.step(self._backend, token) or ""
