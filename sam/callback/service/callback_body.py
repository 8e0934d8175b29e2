"""Decoder of callback bodies, in the encodings and with the flaws that senders have.

The common body is UTF-8 that pydantic reads. One that it does not, or that is large, is put into
UTF-8 and looked through for the two fields that matter (`json_members.py`), and these are held to
the same model.
"""

import codecs
import contextlib
import functools
import json
from collections.abc import Callable
from email.message import Message
from encodings import aliases, normalize_encoding
from typing import Final, NamedTuple, TypeVar

from pydantic import ValidationError
from pydantic_core import InitErrorDetails
from starlette.datastructures import Headers
from starlette.types import Scope

from sam.callback.service.json_members import MemberReader, NotJsonError
from sam.callback.service.schemas import CallbackPayload
from sam.callback.threads import DaemonThreadPool

UTF_8: Final = "utf_8"

COMMON_BYTES: Final = 2**20
"""Pydantic builds all that a body holds: of a MiB up to 17 MiB, in up to 22 ms."""

AT_ONCE_BYTES: Final = 2**14
"""What takes the event loop 8 ms at most to look through; more goes to a thread."""

# UTF-16 and UTF-32 are known by their zeros. Of the others those in which ASCII stands for itself,
# and no codec of Python's own: some of these take a time that grows with the square of the length.
_CHARSETS = frozenset(
    {"latin_1", "koi8_r", "koi8_u", "mac_roman", "big5", "euc_jp", "euc_kr", "shift_jis"}
    | {"gb2312", "gbk", "gb18030", "cp437", "cp850", "cp852", "cp858", "cp866", "cp874"}
    | {"cp932", "cp949", "cp950", *(f"cp125{number}" for number in range(9))}
    | {f"iso8859_{number}" for number in range(2, 17) if number != 12}  # noqa: PLR2004 - there is none
)
_FIELDS = MemberReader(CallbackPayload.model_fields)

T = TypeVar("T")


class Decoded(NamedTuple):
    """A body that was understood.

    Attributes:
        payload: What matters of it.
        body: All of it in UTF-8, without a BOM. What was no character stays none.
    """

    payload: CallbackPayload
    body: bytes


def charset_of(scope: Scope) -> str:
    """Return the codec of the charset that a request's content type names.

    It is UTF-8 where it names none, or one that is not known.
    """
    return _charset_in(Headers(scope=scope).get("content-type", ""))


def decode_common(body: bytes, scope: Scope) -> CallbackPayload | None:
    """Return what matters of a request's body; None if it is not common, or not understood."""
    if len(body) > COMMON_BYTES or not (body.isascii() or charset_of(scope) == UTF_8):
        return None
    try:
        return CallbackPayload.model_validate_json(body)
    except ValidationError:
        return None


def decode(body: bytes, charset: str = UTF_8) -> Decoded:
    """Decode any body.

    Args:
        body: As it came.
        charset: Its codec, unless it begins as only UTF-16, UTF-32 or UTF-8 with a BOM does.

    Raises:
        ValidationError: If it is no JSON object, or its fields are not valid.
    """
    utf_8 = _in_utf_8(body, charset)
    try:
        fields = dict(_FIELDS.read(utf_8))
    except NotJsonError as error:
        raise ValidationError.from_exception_data(
            CallbackPayload.__name__,
            [InitErrorDetails(type="json_invalid", input=None, ctx={"error": str(error)})],
        ) from None
    return Decoded(CallbackPayload.model_validate(fields), utf_8)


def mistakes_in(error: ValidationError) -> list[str]:
    """Return what is wrong with a body, a sentence each; without what was in it."""
    return [
        f"{'.'.join(map(str, mistake['loc']))}: {mistake['msg']}".removeprefix(": ")
        for mistake in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def readable_fields(body: bytes, charset: str = UTF_8) -> dict[str, str]:
    """Return the valid ones of the fields that matter, though the body is not valid, or breaks off.

    Args:
        body: As it came.
        charset: As for `decode`.
    """
    fields: dict[str, str | None] = {}
    with contextlib.suppress(NotJsonError):
        fields.update(_FIELDS.read(_in_utf_8(body, charset)))
    wrong = set()
    try:
        CallbackPayload.model_validate(fields)
    except ValidationError as error:
        wrong = {mistake["loc"][0] for mistake in error.errors(include_url=False)}
    return {name: text.strip() for name, text in fields.items() if text and name not in wrong}


class BodyDecoder:
    """Decodes bodies that are not common; large ones one by one, on a thread."""

    def __init__(self) -> None:
        self._thread = DaemonThreadPool(1, "bodies")

    async def run(self, read: Callable[[bytes, str], T], body: bytes, scope: Scope) -> T:
        """Call `decode` or `readable_fields` for a request's body; raises what they do."""
        charset = charset_of(scope)
        if len(body) <= AT_ONCE_BYTES:
            return read(body, charset)
        return await self._thread.run(read, body, charset)

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown()


@functools.lru_cache(maxsize=64)
def _charset_in(content_type: str) -> str:
    header = Message()
    header["Content-Type"] = content_type
    label = header.get_param("charset")
    if not isinstance(label, str):
        return UTF_8
    name = normalize_encoding(label.strip()).lower()
    codec = aliases.aliases.get(name, name)
    return codec if codec in _CHARSETS else UTF_8


def _in_utf_8(body: bytes, charset: str) -> bytes:
    """Return a body in UTF-8, without a BOM; one that is in UTF-8 as it is, flaws included."""
    if body.startswith(codecs.BOM_UTF8):
        return body.removeprefix(codecs.BOM_UTF8)
    # By the BOM, or by where the zeros are (RFC 4627, 3).
    detected = json.detect_encoding(body)
    codec = charset if detected == "utf-8" else detected
    if codec == UTF_8:
        return body
    try:
        return body.decode(codec).encode()
    except UnicodeDecodeError:
        # What is not known shall stay so: 0xFF is no byte of UTF-8, and in no valid field.
        text = body.decode(codec, "replace").replace("\ufffd", "\udcff")
        return text.encode("utf-8", "surrogateescape")
