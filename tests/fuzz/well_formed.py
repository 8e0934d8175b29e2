"""Well-formed requests: with the key and without, to all kinds of paths."""

import random
import uuid
from typing import Final

from tests.fuzz import vocabulary as words
from tests.fuzz.conversation import Request
from tests.fuzz.vocabulary import Header
from tests.support.callbacks import body
from tests.support.service import KEY

KEY_HEADER: Final[Header] = (b"X-API-KEY", KEY.encode())

_REFUSED: Final = frozenset({401})
_NOT_FOUND: Final = frozenset({200, 404, 405})  # 200: there are paths that only need the key


class Requests:
    """Makes one request after the other.

    Args:
        seed: Where it starts.

    Attributes:
        deployment_ids: All that were used.
    """

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)  # noqa: S311 - it must be the same again
        self.deployment_ids: list[str] = []

    def _request(self) -> Request:
        return self._random.choice(
            [self._taken, self._taken, self._refused, self._refused, self._public, self._elsewhere,
             self._not_understood]
        )()  # fmt: skip

    def _last_request(self) -> Request:
        pick = self._random
        how = pick.choice(["close", "1.0", "expect", "key in trailer"])
        if how == "key in trailer":
            made, content = self._new(statuses=_REFUSED, may_end_early=True)
            framed = self._chunked(content, trailers=[KEY_HEADER])
            made.data = self._build(b"POST", b"/callback", [], *framed)
            return made
        made, content = self._new(statuses=frozenset({200}), is_taken=True)
        headers = [KEY_HEADER]
        version = b"HTTP/1.1"
        if how == "close":
            headers.append((b"Connection", pick.choice([b"close", b"Close", b"a, close"])))
        elif how == "1.0":
            version = b"HTTP/1.0"
        else:
            headers.append((b"Expect", b"100-continue"))
        made.closes = how != "expect"
        made.data = self._build(
            b"POST", b"/callback", headers, *self._framed(content), version=version
        )
        return made

    def _taken(self) -> Request:
        made, content = self._new(statuses=frozenset({200}), is_taken=True)
        pick = self._random
        blanks = [b"", b" ", b"\t "]
        key = pick.choice(blanks) + KEY_HEADER[1] + pick.choice(blanks)
        headers = [(pick.choice(words.KEY_NAMES), key)]
        if pick.random() < 0.1:
            headers += [(b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", b"h2c")]
        target = pick.choice(words.CALLBACK)
        made.data = self._build(b"POST", target, headers, *self._framed(content))
        return made

    def _refused(self) -> Request:
        made, content = self._new(statuses=_REFUSED, may_end_early=True)
        pick = self._random
        target = pick.choice(words.CALLBACK + words.ELSEWHERE + words.PUBLIC)
        methods = words.METHODS
        if words.path_of(target) in {words.path_of(public) for public in words.PUBLIC}:
            methods = [method for method in methods if method not in {b"GET", b"HEAD"}]
        elif pick.random() < 0.6:
            methods = [b"POST"]
        if pick.random() < 0.1:
            target += b"?X-API-KEY=" + KEY.encode()
        method = pick.choice(methods)
        made.is_head = method == b"HEAD"
        headers = list(pick.choice(words.NOT_THE_KEY))
        made.data = self._build(method, target, headers, *self._framed(content))
        return made

    def _public(self) -> Request:
        made, content = self._new(statuses=frozenset({200}), may_end_early=True)
        pick = self._random
        target = pick.choice(words.PUBLIC)
        method = pick.choice([b"GET", b"HEAD"]) if b"ealth" in target else b"GET"
        made.is_head = method == b"HEAD"
        headers = list(pick.choice(words.NOT_THE_KEY))
        framed = pick.choice([([], b""), self._framed(content)])
        made.data = self._build(method, target, headers, *framed)
        return made

    def _elsewhere(self) -> Request:
        made, content = self._new(statuses=_NOT_FOUND, may_end_early=True)
        pick = self._random
        method = pick.choice([b"GET", b"POST", b"POST", b"PUT"])
        target = pick.choice(words.ELSEWHERE)
        made.data = self._build(method, target, [KEY_HEADER], *self._framed(content))
        return made

    def _not_understood(self) -> Request:
        made, content = self._new(statuses=frozenset({422}))
        content = self._random.choice(
            [b"", content[:-1], content[1:], content.replace(b":", b"\x00"), b"[%b]" % content,
             content + content, content.decode().encode("utf-16")[:-1], b"\xff" + content]
        )  # fmt: skip
        made.data = self._build(b"POST", b"/callback", [KEY_HEADER], *self._framed(content))
        return made

    # How they are built.

    def _new(
        self, *, statuses: frozenset[int], is_taken: bool = False, may_end_early: bool = False
    ) -> tuple[Request, bytes]:
        deployment_id = str(uuid.UUID(int=self._random.getrandbits(128)))
        self.deployment_ids.append(deployment_id)
        status = f"S{len(self.deployment_ids)}"
        made = Request(
            b"", statuses, deployment_id, status, is_taken=is_taken, may_end_early=may_end_early
        )
        return made, body(deployment_id, status)

    def _build(
        self,
        method: bytes,
        target: bytes,
        headers: list[Header],
        framing: list[Header],
        content: bytes,
        *,
        version: bytes = b"HTTP/1.1",
        noise: bool = True,
    ) -> bytes:
        pick = self._random
        lines = [(b"Host", b"x"), *headers, *framing]
        if noise and pick.random() < 0.4:
            lines[0] = (b"Host", pick.choice(words.HOSTS))
            lines += pick.sample(words.NOISE, pick.randint(0, 3))
            if pick.random() < 0.5:
                pick.shuffle(lines)
        head = b"".join(b"%b: %b\r\n" % line for line in lines)
        return b"%b %b %b\r\n%b\r\n%b" % (method, target, version, head, content)

    def _framed(self, content: bytes) -> tuple[list[Header], bytes]:
        pick = self._random
        if pick.random() < 0.4:
            return self._chunked(content)
        if pick.random() < 0.1:
            zeros = b"0" * pick.choice([1, 20, 5_000])
            return [(b"Content-Length", zeros + b"%d" % len(content))], content
        return self._plain(content)

    def _plain(self, content: bytes) -> tuple[list[Header], bytes]:
        return [(b"Content-Length", b"%d" % len(content))], content

    def _chunked(
        self, content: bytes, *, trailers: list[Header] | None = None
    ) -> tuple[list[Header], bytes]:
        pick = self._random
        at = sorted(pick.randint(0, len(content)) for _ in range(pick.choice([0, 1, 3, 40])))
        pieces = [content[a:b] for a, b in zip([0, *at], [*at, len(content)], strict=True)]
        chunks = b"".join(
            b"%b%b\r\n%b\r\n" % (self._size_of(piece), pick.choice([b"", b"", b";a=b"]), piece)
            for piece in pieces
            if piece
        )
        if trailers is None:
            trailers = pick.choice(
                [
                    [],
                    [],
                    [],
                    [(b"A", b"b")],
                    [KEY_HEADER],
                    [KEY_HEADER, KEY_HEADER],
                    [(b"Host", b"")],
                ]
            )
        end = b"".join(b"%b: %b\r\n" % trailer for trailer in trailers)
        coding = pick.choice([b"chunked", b"chunked", b"Chunked", b"CHUNKED"])
        return [(b"Transfer-Encoding", coding)], chunks + b"0\r\n" + end + b"\r\n"

    def _size_of(self, piece: bytes) -> bytes:
        return self._random.choice([b"%x", b"%x", b"%X", b"%08x", b"%0200x"]) % len(piece)
