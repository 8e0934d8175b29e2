"""Whether a shared secret can be guessed."""

from typing import Final

MIN_LENGTH: Final = 20
"""Of letters and digits, 119 bits where they are random: more than anybody tries."""

MIN_DISTINCT: Final = 10
"""A random key of that length has more, but for one in millions."""

HOW_TO_MAKE_ONE: Final = 'python -c "import secrets; print(secrets.token_urlsafe(32))"'

_KNOWN = {"local-demo-key", "change-me", "changeme", "api-key", "password", "secret"}


def weakness_of(key: str) -> str:
    """Say why a key is weak, without quoting it; '' if it is not known to be."""
    if any(known in key.lower() for known in _KNOWN):
        return "it is, or holds, an example that everybody knows"
    if len(key) < MIN_LENGTH:
        return f"it has {len(key)} characters, and should have {MIN_LENGTH} at least"
    if len(set(key)) < MIN_DISTINCT:
        return f"it has {len(set(key))} different characters only"
    return ""
