"""Malformed requests, and ambiguous ones."""

from typing import Final

from tests.fuzz import vocabulary as words
from tests.fuzz.conversation import End, Tail
from tests.fuzz.well_formed import KEY_HEADER, Requests

_SHARE_OF_PATIENCE: Final = 0.01

_FAULTY: Final = frozenset({400})


class Tails(Requests):
    """Makes one tail after the other; as `Requests`."""

    def _tail(self) -> Tail:
        return self._random.choice(
            [
                self._smuggled,
                self._smuggled,
                self._bad_chunk,
                self._bad_header,
                self._bad_line,
                self._too_large,
                self._truncated,
                self._mutated,
                self._mutated,
                self._mutated_without_key,
                self._mutated_without_key,
                self._noise,
                self._old_http,
            ]
        )()

    def _smuggled(self) -> Tail:
        pick = self._random
        hidden, content = self._new(statuses=frozenset())
        inner = self._build(b"POST", b"/callback", [KEY_HEADER], *self._plain(content))
        outer, content = self._new(statuses=frozenset())
        rest = pick.choice(
            [
                b"0\r\n\r\n" + inner,
                b"%x\r\n%b\r\n0\r\n\r\n" % (len(inner), inner),
                b"%x\r\n%b\r\n0\r\n\r\n" % (len(content), content) + inner,
                content + inner,
                inner,
            ]
        )
        framing = pick.choice(words.faulty_framings(pick.choice([len(content), len(rest), 4])))
        lines = pick.choice([[framing], [framing, b"%b: %b\r\n" % KEY_HEADER]])
        # What is wrong behind the headers is seen once the key was asked for.
        statuses = _FAULTY if len(lines) > 1 else frozenset({400, 401})
        pick.shuffle(lines)
        data = b"POST /callback HTTP/1.1\r\nHost: x\r\n%b\r\n%b" % (b"".join(lines), rest)
        never = [hidden.deployment_id, outer.deployment_id]
        return Tail("smuggled", data, statuses, End.CLOSED, never=never)

    def _bad_chunk(self) -> Tail:
        pick = self._random
        outer, content = self._new(statuses=frozenset())
        hidden, inner = self._new(statuses=frozenset())
        second = self._build(b"POST", b"/callback", [KEY_HEADER], *self._plain(inner))
        _, chunks = self._chunked(content)
        size = b"%x" % len(content)
        bad = pick.choice(
            [
                *(faulty + b"\r\n" for faulty in words.FAULTY_CHUNK_SIZES),
                size + b"\r\n" + content + b"x\r\n",
                size + b"\r\n" + content + b"\n",
                size + b"\n" + content + b"\r\n",
                b"%x\r\n%b\r\n" % (len(content) - 1, content),
                size + b"\r\n" + content + b"\r\n0\r\nA B: c\r\n",
                size + b"\r\n" + content + b"\r\n0\r\n\x00",
                size + b"\r\n" + content + b"\r\n0\r\nContent-Length: 0\r\n\r\n",
                size + b"\r\n" + content + b"\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
                size + b"\r\n" + content + b"\r\n0\r\n" + b"A: b\r\n" * 3000,
                size + b"\r\n" + content + b"\r\n0\r\n" + b"A: " + b"b" * 40_000,
                size + b";" + b"e" * 40_000,
            ]
        )
        lead = pick.choice([b"", chunks[: chunks.rfind(b"0\r\n")]])
        key = pick.choice([[KEY_HEADER], []])
        head = self._build(b"POST", b"/callback", key, [(b"Transfer-Encoding", b"chunked")], b"")
        statuses = frozenset({400, 431}) if key else frozenset({400, 401, 431})
        never = [outer.deployment_id, hidden.deployment_id]
        return Tail("bad chunk", head + lead + bad + second, statuses, End.CLOSED, never=never)

    def _bad_header(self) -> Tail:
        made, content = self._new(statuses=frozenset())
        pick = self._random
        data = self._build(b"POST", b"/callback", [KEY_HEADER], *self._plain(content))
        line = pick.choice(words.FAULTY_HEADERS)
        if b"X-API" in line:
            data = data.replace(b"X-API-KEY: %b\r\n" % KEY_HEADER[1], b"")
        head, _, rest = data.partition(b"\r\n")
        data = head + b"\r\n" + line + rest
        if pick.random() < 0.1:
            data = data.replace(b"\r\n", b"\n", pick.randint(1, 3)).replace(
                b"HTTP/1.1\r", b"HTTP/1.1"
            )
        return Tail("bad header", data, _FAULTY, End.CLOSED, never=[made.deployment_id])

    def _bad_line(self) -> Tail:
        made, content = self._new(statuses=frozenset())
        data = self._build(b"POST", b"/callback", [KEY_HEADER], *self._plain(content))
        line = self._random.choice(words.FAULTY_LINES)
        data = line + data[data.index(b"\r\n") :]
        return Tail("bad line", data, _FAULTY, End.CLOSED, never=[made.deployment_id])

    def _too_large(self) -> Tail:
        made, content = self._new(statuses=frozenset())
        what, statuses = self._random.choice(
            [
                ((b"/callback", [(b"A", b"b")] * 101), {431}),
                ((b"/callback", [(b"A", b"b" * 17_000)]), {431}),
                ((b"/callback", [(b"A" * 17_000, b"b")]), {400, 431}),
                ((b"/callback?" + b"a" * 9_000, []), {414}),
                ((b"/callback/" + b"%41" * 3_000, []), {414}),
            ]
        )
        target, headers = what
        data = self._build(
            b"POST", target, [KEY_HEADER, *headers], *self._plain(content), noise=False
        )
        never = [made.deployment_id]
        return Tail("too large", data, frozenset(statuses), End.CLOSED, never=never)

    def _truncated(self) -> Tail:
        made, content = self._new(statuses=frozenset())
        pick = self._random
        data = self._build(b"POST", b"/callback", [KEY_HEADER], *self._framed(content))
        data = data[: pick.randrange(len(data) - 2)]
        late = pick.random() < _SHARE_OF_PATIENCE * 5
        end = End.LATE if late else End.OURS
        never = [made.deployment_id]
        return Tail("truncated", data, frozenset({408}), end, never=never)

    def _old_http(self) -> Tail:
        made, content = self._new(statuses=frozenset())
        pick = self._random
        data = pick.choice(
            [b"GET /health\r\n", b"POST /callback\r\n", b"POST /callback\r\n\r\n" + content,
             b"GET /\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00" * 9]
        )  # fmt: skip
        late = pick.random() < _SHARE_OF_PATIENCE * 5
        end = End.LATE if late else End.OURS
        return Tail("HTTP/0.9", data, frozenset({400, 401, 408}), end, never=[made.deployment_id])

    def _mutated(self) -> Tail:
        made = self._random.choice([self._taken, self._last_request])()
        return self._mutate("mutated", made.data, maybe=[made.deployment_id])

    def _mutated_without_key(self) -> Tail:
        made, content = self._new(statuses=frozenset())
        pick = self._random
        target = pick.choice(words.CALLBACK + words.ELSEWHERE + words.PUBLIC)
        data = self._build(
            pick.choice([b"POST", b"POST", b"GET"]), target, [], *self._framed(content)
        )
        never = [made.deployment_id]
        return self._mutate("mutated, without a key", data, never=never)

    def _noise(self) -> Tail:
        pick = self._random
        data = pick.randbytes(pick.randint(1, 400))
        if pick.random() < 0.5:
            data = b"".join(
                pick.choice([b"\r\n", b"\n", b" ", b":", b"POST ", b"/callback", b" HTTP/1.1",
                             b"GET ", b"/health", b"Transfer-Encoding: chunked", b"0", b"Host: x",
                             b"Content-Length: ", b"\x00", b"9", b"Upgrade: h2c", b"Connection: "])
                for _ in range(pick.randint(1, 30))
            )  # fmt: skip
        end = End.LATE if pick.random() < _SHARE_OF_PATIENCE else End.OURS
        return Tail("noise", data, frozenset(), end)

    def _mutate(
        self,
        kind: str,
        data: bytes,
        *,
        never: list[str] | None = None,
        maybe: list[str] | None = None,
    ) -> Tail:
        pick = self._random
        mutable = bytearray(data)
        for _ in range(pick.choice([1, 1, 1, 2, 3, 8])):
            at = pick.randrange(len(mutable))
            size = pick.randint(1, 12)
            match pick.randrange(6):
                case 0 | 1:
                    mutable[at] ^= 1 << pick.randrange(8)
                case 2:
                    del mutable[at : at + size]
                case 3:
                    mutable[at:at] = mutable[at : at + size]
                case 4:
                    mutable[at:at] = pick.choice(
                        [b"\r\n", b"\n", b"\r", b"\x00", b" ", b"\t", b":", b"\xff", b"%", b"/../"]
                    )
                case _:
                    mutable[at : at + size] = pick.randbytes(size)
            if not mutable:
                break
        end = End.LATE if pick.random() < _SHARE_OF_PATIENCE else End.OURS
        return Tail(kind, bytes(mutable), frozenset(), end, never=never or [], maybe=maybe or [])
