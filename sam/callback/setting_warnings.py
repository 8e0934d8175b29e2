"""Warnings about settings that are valid, and probably not intended."""

import difflib
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Final

from sam.callback.check_result import CheckResult, Level

MIN_KEY_LENGTH: Final = 20
"""Of letters and digits, 119 bits where they are random: more than can be tried."""

MIN_KEY_DISTINCT: Final = 10
"""A random key of that length has more, but for one in millions."""

HOW_TO_MAKE_A_KEY: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'

_KNOWN_KEYS = {"local-demo-key", "change-me", "changeme", "api-key", "password", "secret"}

_TAKE_MARKS_AWAY: Final = (
    "Take the marks away: `docker run --env-file`, Kubernetes and files in /run/secrets keep them, "
    "unlike a shell, systemd and a file .env."
)
_TAKE_BLANKS_AWAY: Final = (
    "Take that away. For a line end: `printf %s` instead of `echo`, or a file in /run/secrets, "
    "whose last line end does not count."
)


def warnings_about(variables: Mapping[str, str], known: Collection[str]) -> Iterator[CheckResult]:
    """Yield a warning for each variable that is probably not meant as it is, without its value.

    Args:
        variables: Their values by their names, in small letters.
        known: The names of all settings, in small letters.
    """
    for name, value in sorted(variables.items()):
        warning = partial(CheckResult, name.upper(), Level.WARNING)
        if name not in known:
            similar = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            yield warning(
                "There is no such setting. It is ignored.",
                f"Did you mean {similar[0].upper()}?" if similar else "Take it away.",
            )
            continue
        if is_quoted(value):
            yield warning(
                "Its value begins and ends with a quotation mark, which is part of it.",
                _TAKE_MARKS_AWAY,
            )
        if value.endswith(("\n", "\r")):
            yield warning("Its value ends with a line end.", _TAKE_BLANKS_AWAY)
        elif value != value.strip():
            yield warning("Its value begins or ends with a blank.", _TAKE_BLANKS_AWAY)


def weakness_of(key: str) -> str:
    """Return why a shared secret can be guessed, without quoting it; '' if no reason is known."""
    if any(known in key.lower() for known in _KNOWN_KEYS):
        return "it is, or holds, a published example"
    if len(key) < MIN_KEY_LENGTH:
        return f"it has {len(key)} characters, and should have {MIN_KEY_LENGTH} at least"
    if len(set(key)) < MIN_KEY_DISTINCT:
        return f"it has {len(set(key))} different characters only"
    return ""


def is_quoted(value: object) -> bool:
    """Whether a value is a text that begins and ends with the same quotation mark."""
    return isinstance(value, str) and len(value) > 1 and value[0] == value[-1] and value[0] in "'\""
