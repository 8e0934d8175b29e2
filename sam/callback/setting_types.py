"""Setting types: durations, names, keys, parsed from text."""

import os
import re
import stat
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>ms|s|min|h|d)?", re.IGNORECASE)
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_IDENTIFIER = re.compile(r"[^\W\d][\w$#@ -]{0,127}")
_TABLE = re.compile(rf"{_IDENTIFIER.pattern}(?:\.{_IDENTIFIER.pattern}){{0,2}}")
_OWN_CODE = Path(__file__).resolve()
_VISIBLE_ASCII = re.compile(r"[\x21-\x7e]+")


def _seconds(value: object) -> object:
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match["number"]) * _UNIT_SECONDS[(match["unit"] or "s").lower()]
    return value


def _header_value(secret: SecretStr) -> SecretStr:
    # HTTP strips white space around a header's value and agrees on no encoding beyond ASCII
    # (RFC 9110, 5.5): a key with anything else in it could never be matched.
    if not _VISIBLE_ASCII.fullmatch(secret.get_secret_value()):
        raise ValueError(
            "it holds a space, an accent or another character that a header cannot carry"
        )
    return secret


def _unwritable(driver: str, info: ValidationInfo) -> str:
    # A library is code: one that the process could have written would outlive it.
    if "/" not in driver and "\\" not in driver:
        return driver  # a registered name
    library = Path(driver).resolve()
    spool: Path | None = info.data.get("callback_spool_path")
    is_beside_spool = spool is not None and spool.resolve().parent in library.parents
    if is_beside_spool or (_can_be_replaced(library) and not _can_be_replaced(_OWN_CODE)):
        raise ValueError("the service itself can write there")
    return driver


def _can_be_replaced(file: Path) -> bool:
    """Whether this process can write a file, or a folder above it that is not sticky."""
    is_effective = os.access in os.supports_effective_ids
    return any(
        os.access(each, os.W_OK, effective_ids=is_effective)
        and not each.stat().st_mode & stat.S_ISVTX
        for each in (file, *file.parents)
    )


def _must_match(pattern: re.Pattern[str], what: str) -> AfterValidator:
    def check(name: str) -> str:
        if not pattern.fullmatch(name):
            raise ValueError(f"it cannot be the name of a {what}")
        return name

    return AfterValidator(check)


Seconds = Annotated[float, BeforeValidator(_seconds)]
ApiKey = Annotated[SecretStr, Field(min_length=1, max_length=512), AfterValidator(_header_value)]
Encrypt = Annotated[
    Literal["yes", "no", "mandatory", "optional", "strict"], BeforeValidator(str.lower)
]
Driver = Annotated[str, AfterValidator(_unwritable)]
Column = Annotated[str, _must_match(_IDENTIFIER, "column")]
Table = Annotated[str, _must_match(_TABLE, "table")]


class LogFormat(StrEnum):
    """Format of the log lines."""

    JSON = "json"
    CONSOLE = "console"


class LogLevel(StrEnum):
    """Lowest level that is written."""

    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"
    CRITICAL = "CRITICAL"
