"""Reader of single members of a JSON object; the others are ignored.

No parser that was tried takes all that may stand in a member that is ignored: they convert
numbers, join surrogates, recurse, or build what they will throw away (docs/decisions has which).
This one only recognises the grammar of RFC 8259, and ``NaN`` and ``Infinity`` as pydantic does. It
neither recurses nor builds anything, and its time grows with the length alone.

It reads bytes of UTF-8. Within strings there may be bytes that are none.
"""

import json
import re
from collections.abc import Collection, Iterator
from typing import Final

_REPETITIONS: Final = 100
"""Of a group in one match: the engine remembers each until the end, and holds the GIL.

Possessive groups would not be remembered, and match wrongly before 3.11.5 (cpython issue 106052).
"""

_SMALL: Final = 20
"""Escapes of a string, and items of an array or object, that the engine takes in one group."""

_BLANKS = rb"[ \t\n\r]*+"
_PLAIN = rb'[^"\\\x00-\x1f]*+'
_ESCAPE = rb'\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})'
_STRING = rb'"%b(?:%b%b){0,%d}"' % (_PLAIN, _ESCAPE, _PLAIN, _SMALL)
_NUMBER = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?"
_SCALAR = rb"(?:%b|%b|true|false|null|NaN|-?Infinity)" % (_STRING, _NUMBER)


def _member(value: bytes) -> bytes:
    return rb"%b%b:%b%b" % (_STRING, _BLANKS, _BLANKS, value)


def _several(item: bytes) -> bytes:
    item += _BLANKS
    return rb"%b(?:%b(?:,%b%b){0,%d})?" % (_BLANKS, item, _BLANKS, item, _SMALL)


def _or_small_container(value: bytes) -> bytes:
    return rb"(?:%b|\[%b\]|\{%b\})" % (value, _several(value), _several(_member(value)))


# What the engine recognises by itself: two levels are what A360 puts out, objects of objects with a
# type and a value. What is larger or deeper is opened step by step.
_FLAT = _or_small_container(_or_small_container(_SCALAR))


def _siblings(item: bytes) -> "re.Pattern[bytes]":
    return re.compile(rb"(?:%b%b%b,){1,%d}" % (_BLANKS, item, _BLANKS, _REPETITIONS))


_FLAT_SIBLINGS = {ord("]"): _siblings(_FLAT), ord("}"): _siblings(_member(_FLAT))}
_VALUE = re.compile(
    # Arrays within arrays are opened together, but for one that is empty, and so flat.
    rb'%b(?:%b|(?P<object>\{)|(?P<arrays>\[(?:%b\[(?!%b\])){0,%d})|(?P<string>"))'
    % (_BLANKS, _FLAT, _BLANKS, _BLANKS, _REPETITIONS)
)
_NAME = re.compile(rb'%b(?:(?P<name>%b)%b:|")' % (_BLANKS, _STRING, _BLANKS))
_COLON = re.compile(_BLANKS + rb":")
_NEXT = re.compile(_BLANKS + rb"[],}]")
_BEGIN = re.compile(_BLANKS + rb"\{(?:%b\})?" % _BLANKS)
_END = re.compile(_BLANKS + rb"\Z")
_ESCAPES = re.compile(rb"(?:%b%b){1,%d}" % (_PLAIN, _ESCAPE, _REPETITIONS))
_REST_OF_STRING = re.compile(_PLAIN + rb'(?P<end>"?)')

_COMMA, _CLOSE_OBJECT, _QUOTE = b',}"'


class NotJsonError(ValueError):
    """A text is no JSON object. The message says where, and repeats nothing of it."""

    def __init__(self, body: bytes, at: int, what: str = "unexpected character") -> None:
        is_over = _END.match(body, at) is not None
        super().__init__("the text ends too early" if is_over else f"{what} at byte {at}")


class MemberReader:
    """Finds some members of JSON objects.

    Args:
        names: Theirs.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        wanted = b"|".join(re.escape(name.encode()) for name in names)
        # A name with an escape in it may be one of them.
        name = rb'(?!"(?:%b)")"%b"' % (wanted, _PLAIN)
        self._others = _siblings(rb"%b%b:%b%b" % (name, _BLANKS, _BLANKS, _FLAT))

    def read(self, body: bytes) -> Iterator[tuple[str, str | None]]:
        """Yield the members with these names, in their order; one may come several times.

        Where the text breaks off, what stands before that has been yielded.

        Args:
            body: The object, in UTF-8 without a BOM.

        Yields:
            The name and the value: a string, with lone surrogates for what has no character; None
            for a value of another type.

        Raises:
            NotJsonError: If it is no JSON object.
        """
        begin = _BEGIN.match(body)
        if begin is None:
            raise NotJsonError(body, 0, "no object")
        at = begin.end()
        following = body[at - 1]
        while following != _CLOSE_OBJECT:
            while others := self._others.match(body, at):
                at = others.end()
            name_end, value_at = _name(body, at)
            name = _string(body[at:name_end])
            at = _end_of_value(body, value_at)
            if name in self._names:
                yield name, _string(body[value_at:at])
            following, at = _following(body, at)
            if following not in {_COMMA, _CLOSE_OBJECT}:
                raise NotJsonError(body, at - 1)
        if _END.match(body, at) is None:
            raise NotJsonError(body, at)


def _string(token: bytes) -> str | None:
    token = token.strip(b" \t\n\r")
    if token[0] != _QUOTE:
        return None
    text: str = json.loads(token.decode("utf-8", "surrogateescape"))
    return text


def _name(body: bytes, at: int) -> tuple[int, int]:
    """Return the places behind the name of the member that begins here, and behind its colon."""
    found = _NAME.match(body, at)
    if found is None:
        raise NotJsonError(body, at)
    if found["name"]:
        return found.end("name"), found.end()
    end = _end_of_string(body, found.end())
    colon = _COLON.match(body, end)
    if colon is None:
        raise NotJsonError(body, end)
    return end, colon.end()


def _end_of_string(body: bytes, at: int) -> int:
    """Return the place behind a string, given the one behind its first quotation mark."""
    while escapes := _ESCAPES.match(body, at):
        at = escapes.end()
    rest = _REST_OF_STRING.match(body, at)
    if rest is None or not rest["end"]:
        raise NotJsonError(body, rest.end() if rest else at)
    return rest.end()


def _following(body: bytes, at: int) -> tuple[int, int]:
    """Return the comma or bracket that is next, and the place behind it."""
    found = _NEXT.match(body, at)
    if found is None:
        raise NotJsonError(body, at)
    return body[found.end() - 1], found.end()


def _end_of_value(body: bytes, at: int) -> int:
    """Return the place behind the value that begins here."""
    to_close = bytearray()  # the brackets that are awaited, the innermost last
    while True:
        at, opened = _value(body, at)
        to_close += opened
        if not opened:
            at = _close(body, at, to_close)
            if not to_close:
                return at
        while siblings := _FLAT_SIBLINGS[to_close[-1]].match(body, at):
            at = siblings.end()
        if to_close[-1] == _CLOSE_OBJECT:
            _, at = _name(body, at)


def _value(body: bytes, at: int) -> tuple[int, bytes]:
    """Return the place behind a flat value; or behind what opens others, and what closes them."""
    found = _VALUE.match(body, at)
    if found is None:
        raise NotJsonError(body, at)
    match found.lastgroup:
        case "object":
            return found.end(), b"}"
        case "arrays":
            return found.end(), b"]" * found["arrays"].count(b"[")
        case "string":
            return _end_of_string(body, found.end()), b""
        case _:
            return found.end(), b""


def _close(body: bytes, at: int, to_close: bytearray) -> int:
    """Return the place behind the next comma; or behind the last bracket, if there is no comma."""
    while to_close:
        following, at = _following(body, at)
        if following == _COMMA:
            break
        if following != to_close.pop():
            raise NotJsonError(body, at - 1)
    return at
