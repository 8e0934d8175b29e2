"""Search of all that the service prints, in any test, for the key and the database's password."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from tests.support.databases import UNUSED_PASSWORD

KEY: Final = "test-key-5f2c9e"

# A shorter value turns up by chance.
_SHORTEST: Final = 4
# An ODBC value: in braces, a closing one doubled, or plain.
_PASSWORD = re.compile(r"\b(?:PWD|PASSWORD)\s*=\s*(?:\{((?:[^}]|\}\})*)\}|([^;]*))", re.IGNORECASE)

searched: Final = Counter[str]()
"""The number of processes and characters searched in this process."""


class SecretPrintedError(AssertionError):
    """A secret was printed. The message does not repeat it."""


def search(environment: Mapping[str, str], texts: Iterable[str]) -> None:
    """Search what one process printed for the secrets of the tests and those of its environment.

    Raises:
        SecretPrintedError: If one is there, plain or as JSON writes it.
    """
    texts = list(texts)
    searched.update(processes=1, characters=sum(map(len, texts)))
    for secret in {KEY, UNUSED_PASSWORD, *_secrets_of(environment)}:
        for form in {
            secret,
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
        }:
            for text in texts:
                if form in text:
                    place = text.index(form)
                    around = text[max(place - 80, 0) : place + len(form) + 80]
                    raise SecretPrintedError(around.replace(form, "(THE SECRET)"))


def _secrets_of(environment: Mapping[str, str]) -> Iterator[str]:
    for name, value in environment.items():
        found = []
        if name.endswith(("_API_KEY", "_API_KEY_PREVIOUS", "PASSWORD")):
            found = [value]
        elif name == "SQL_SAM_CONNECTION_STRING":
            found = [
                plain or braced.replace("}}", "}") for braced, plain in _PASSWORD.findall(value)
            ]
        yield from (secret for secret in found if len(secret) >= _SHORTEST)
