"""Bloom filter of deployments' keys: a no is sure, a yes is to be looked up."""

from collections.abc import Iterable
from typing import Final

BITS: Final = 2**24
"""2 MiB. Of 5 million keys, which fill a spool of 1 GiB, every fourth answer is a false yes; of a
million, one in 500."""

_HASHES: Final = 4


class KeyFilter:
    """Keys that may have an entry. What was added stays, whatever becomes of the entry."""

    def __init__(self) -> None:
        self._bits = bytearray(BITS // 8)

    def add(self, keys: Iterable[str]) -> None:
        """Add keys."""
        bits = self._bits
        for key in keys:
            for bit in _bits_of(key):
                bits[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, key: str) -> bool:
        """Whether a key may have been added."""
        bits = self._bits
        return all(bits[bit >> 3] >> (bit & 7) & 1 for bit in _bits_of(key))


def _bits_of(key: str) -> list[int]:
    # Double hashing (Kirsch and Mitzenmacher, "Less Hashing, Same Performance", 2006).
    value = hash(key)
    step = value >> 24 | 1
    return [(value + number * step) % BITS for number in range(_HASHES)]
