"""Key equivalence of deployment ids: the rule by which the database takes two for the same."""

import re
import unicodedata
from dataclasses import dataclass, fields
from functools import cache
from typing import Final, Self

_ASCII_CASE: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UUID_INPUT: Final = re.compile(r"(\{)?[0-9a-f]{4}(?:-?[0-9a-f]{4}){7}(?(1)\})")
"""A hyphen may follow any group of four digits (PostgreSQL, "UUID Type")."""


@dataclass(frozen=True, slots=True)
class KeyRule:
    """An equivalence of deployment ids: the deployment column's type and collation decide.

    Two ids with the same key may be one row, so they are one deployment. Of ids in ASCII, as A360
    gives them, the rule says what the database does. Of others it is an approximation: collations
    differ by product and version in what they make of a letter.

    Attributes:
        ascii_case: Whether A to Z are a to z, as with SQLite's NOCASE.
        case: Whether case does not count in any alphabet.
        accents: Whether accents do not count.
        width: Whether a full-width letter is the plain one.
        uuid: Whether the spellings that PostgreSQL reads as one UUID are one.
    """

    ascii_case: bool = False
    case: bool = False
    accents: bool = False
    width: bool = False
    uuid: bool = False

    def key(self, deployment_id: str) -> str:
        """Return what all ids of the same row have in common."""
        if _UUID.fullmatch(deployment_id):
            return deployment_id  # as A360 writes it: its own key by every rule
        if deployment_id.isascii():
            if self.uuid:
                return _uuid_key(deployment_id)
            return deployment_id.lower() if self.case or self.ascii_case else deployment_id
        key = deployment_id
        if self.width:
            key = unicodedata.normalize("NFKC", key)
        if self.accents:
            letters = unicodedata.normalize("NFD", key)
            key = "".join(letter for letter in letters if not unicodedata.combining(letter))
        if self.case:
            return unicodedata.normalize("NFC", key.casefold())
        return key.translate(_ASCII_CASE) if self.ascii_case else key

    @property
    def name(self) -> str:
        """The rule in words, for a log and a file: '' if only the same text is the same."""
        return ",".join(field.name for field in fields(self) if getattr(self, field.name))

    @classmethod
    @cache
    def named(cls, name: str) -> Self:
        """Return the rule of a name.

        Raises:
            TypeError: If there is none.
        """
        return cls(**dict.fromkeys(filter(None, name.split(",")), True))

    @classmethod
    def of_collation(cls, name: str) -> Self:
        """Return the rule of SQL Server's collation of this name.

        Its name says what counts: CS case, AS accents, WS width, and BIN all ("Collation and
        Unicode support", "Collation options").
        """
        options = set(name.upper().split("_"))
        if options & {"BIN", "BIN2"}:
            return cls()
        return cls(case="CS" not in options, accents="AS" not in options, width="WS" not in options)


EXACT: Final = KeyRule()
"""Only the same text is the same: a binary collation, or nothing is known yet."""

COARSEST: Final = KeyRule(case=True, accents=True, width=True, uuid=True)
"""For what must not overtake one another, whatever the rule is. Ids with one key by it may be two
deployments: none may take the other's place."""


def _uuid_key(text: str) -> str:
    text = text.lower()
    if _UUID.fullmatch(text) or not _UUID_INPUT.fullmatch(text):
        return text  # what is no UUID meets no row
    digits = text.strip("{}").replace("-", "")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
