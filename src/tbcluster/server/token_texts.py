"""The bytes that a token stands for."""

import re
from functools import lru_cache
from typing import Any

from tbcluster.core import TokenId

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class TokenTexts:
    """Texts and bytes of single tokens of one tokenizer.

    A token may hold a part of a character only: its text then has a replacement character, its
    bytes are exact.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._added = set(tokenizer.added_tokens_decoder)
        self._bytes_of = byte_alphabet() if _is_byte_level(tokenizer) else None
        self.raw = lru_cache(maxsize=2**16)(self._raw)

    def text(self, token: TokenId) -> str:
        """What the token shows by itself."""
        return self.raw(token).decode(errors="replace")

    def _raw(self, token: TokenId) -> bytes:
        name = self._tokenizer.convert_ids_to_tokens(token)
        if name is None:
            return b""  # the model's vocabulary is padded beyond the tokenizer's
        if token in self._added:
            return str(name).encode()
        if self._bytes_of is not None:
            return bytes(self._bytes_of.get(character, 63) for character in name)
        if match := _BYTE_TOKEN.fullmatch(name):
            return bytes([int(match[1], 16)])
        return str(name).replace("▁", " ").encode()


def byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes: those that can be printed stand for themselves, the others
    follow from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}


def _is_byte_level(tokenizer: Any) -> bool:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return backend is not None and "ByteLevel" in repr(backend.decoder)
