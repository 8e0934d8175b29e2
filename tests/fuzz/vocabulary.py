"""Vocabulary of requests: paths, keys, headers, and faulty framings."""

from typing import Final
from urllib.parse import unquote_to_bytes

from tests.support.service import KEY

Header = tuple[bytes, bytes]

_KEY: Final = KEY.encode()
_NAME: Final = b"X-API-KEY"

KEY_NAMES: Final = [b"X-API-KEY", b"x-api-key", b"X-Api-Key", b"x-API-kEY"]

NOT_THE_KEY: Final[list[list[Header]]] = [
    [],
    [(_NAME, b"")],
    [(_NAME, b"wrong")],
    [(_NAME, _KEY[:-1])],
    [(_NAME, _KEY + b"x")],
    [(_NAME, _KEY + b" x")],
    [(_NAME, _KEY + b"\t" + _KEY)],
    [(_NAME, _KEY + b"\xa0")],
    [(_NAME, b"\xef\xbb\xbf" + _KEY)],
    [(_NAME, _KEY.replace(b"-", b"\xad"))],
    [(_NAME, _KEY.upper())],
    [(_NAME, b'"' + _KEY + b'"')],
    [(_NAME, _KEY + b"," + _KEY)],
    [(_NAME, _KEY + b"%00")],
    [(_NAME, _KEY), (_NAME, _KEY)],
    [(_NAME, _KEY), (_NAME, b"wrong")],
    [(_NAME, b"wrong"), (b"x-api-key", _KEY)],
    [(_NAME, b""), (_NAME, _KEY)],
    [(b"X_API_KEY", _KEY)],
    [(b"X-API-KEY-", _KEY)],
    [(b"X-API-KEYS", _KEY)],
    [(b"API-KEY", _KEY)],
    [(b"Authorization", b"ApiKey " + _KEY)],
    [(b"Authorization", b"Bearer " + _KEY)],
    [(b"Cookie", b"X-API-KEY=" + _KEY)],
    [(b"X-Forwarded-X-API-KEY", _KEY)],
    [(b"A", b"X-API-KEY: " + _KEY)],
    [(b"Connection", b"X-API-KEY"), (b"A", _KEY)],
]

CALLBACK: Final = [
    b"/callback",
    b"/callback?",
    b"/callback?X-API-KEY=wrong&a=%00",
    b"/%63allback",
    b"/callbac%6B",
    b"http://x/callback",
    b"http://elsewhere.example:81/callback?a",
]

ELSEWHERE: Final = [
    b"//health/../callback",
    b"/health/../callback",
    b"/health%2f..%2fcallback",
    b"/health%2F..%2Fcallback",
    b"/health%252f..%252fcallback",
    b"/health;/../callback",
    b"/health;a=b",
    b"/health%00",
    b"/health%00/callback",
    b"/health%0d%0a",
    b"/health%20",
    b"/health/",
    b"/health//",
    b"//health",
    b"/./health",
    b"/HEALTH",
    b"/Health",
    b"/health.json",
    b"/health%3fa",
    b"/ready/..%2fcallback",
    b"/callback/",
    b"//callback",
    b"/Callback",
    b"/CALLBACK",
    b"/callback%2f",
    b"/callback%00",
    b"/callback;a",
    b"/callback%3f",
    b"/callback%ff",
    b"/./callback",
    b"/..%2f..%2fcallback",
    b"/%2e%2e/callback",
    b"/docs/../callback",
    b"/docs/assets/../../callback",
    b"/docs/assets/%2e%2e/%2e%2e/callback",
    b"/docs/assets/..%5c..%5ccallback",
    b"/docs/assets/swagger-ui.css/../../../callback",
    b"/docs/assets/%00",
    b"/docs/assets/" + b"a" * 300,
    b"/docs/",
    b"/openapi.json/",
    b"/openapi.json/../callback",
    b"/metrics",
    b"/redoc",
    b"/",
    b"/no/such/path",
    b"/%c0%af",
    b"/%ed%a0%80",
    b"/%zz%",
    b"/%",
    b"http://x/health/../callback",
    b"http://x//health",
    b"http://health/callback/",
    b"/health@x/callback",
    b"/\\health",
]

PUBLIC: Final = [
    b"/health",
    b"/ready",
    b"/openapi.json",
    b"/docs",
    b"/health?X-API-KEY",
    b"/%68ealth",
    b"http://x/health",
]

METHODS: Final = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"PROPFIND",
    b"MKCOL", b"PURGE", b"SEARCH", b"LOCK", b"REPORT", b"SOURCE", b"QUERY",
]  # fmt: skip

NOISE: Final[list[Header]] = [
    (b"X-Forwarded-Prefix", b"/health"),
    (b"X-Forwarded-For", b"\xff\xfe,,[::, 10.0.0.1"),
    (b"X-Forwarded-For", b"127.0.0.1"),
    (b"X-Forwarded-Proto", b"wss"),
    (b"X-Forwarded-Host", b"["),
    (b"X-Forwarded-Path", b"/health"),
    (b"X-Script-Name", b"/health"),
    (b"Forwarded", b'for="_x";proto=https;host=/health'),
    (b"X-Original-URL", b"/health"),
    (b"X-Rewrite-URL", b"/health"),
    (b"X-HTTP-Method-Override", b"GET"),
    (b"X-Method-Override", b"GET"),
    (b"X-HTTP-Method", b"HEAD"),
    (b"X-Request-ID", b"../../" + b"\xe9" * 70),
    (b"X-Request-ID", b"id\x7f-1"[:2]),
    (b"Content-Type", b"multipart/form-data; boundary=" + b"b" * 80),
    (b"Content-Type", b"application/json; charset=utf-16"),
    (b"Content-Encoding", b"gzip"),
    (b"Accept-Encoding", b"gzip;q=0, *;q=9" + b"9" * 400),
    (b"Accept", b"*/*;q=" + b"9" * 5000),
    (b"Range", b"bytes=-1-,5-1,99999999999999999999-"),
    (b"If-None-Match", b'W/"\xff"'),
    (b"If-Modified-Since", b"Xxx, 99 Xxx 99999 99:99:99 GMT"),
    (b"Origin", b"null"),
    (b"Access-Control-Request-Method", b"POST"),
    (b"TE", b"trailers"),
    (b"Content_Length", b"0"),
    (b"Transfer_Encoding", b"chunked"),
    (b"Content-Lengths", b"0"),
    (b"Keep-Alive", b"timeout=" + b"9" * 5000),
    (b"Sec-WebSocket-Key", b"x"),
    (b"Cookie", b"a=" + b"\x80" * 200),
    (b"!#$%&'*+-.^_`|~", b""),
    (b"A", b"\t \t"),
]

HOSTS: Final = [b"x", b"", b"[", b"[::1]:99999", b"\xff", b"health/", b"a" * 300, b"x, y", b"../"]


def faulty_framings(length: int) -> list[bytes]:
    """Header lines of which two readings are possible; `length` would be the body's."""
    size = b"%d" % length
    cl, te = b"Content-Length: " + size, b"Transfer-Encoding: chunked"
    return [
        b"\r\n".join(lines) + b"\r\n"
        for lines in [
            [cl, te],
            [te, cl],
            [b"content-length: " + size, b"tRANSFER-eNCODING: CHUNKED"],
            [te, b"Content-Length: 0"],
            [b"Content-Length: 0", te],
            [cl, cl],
            [cl, b"Content-Length: 0"],
            [b"Content-Length: 0", cl],
            [b"Content-Length: " + size + b", " + size],
            [b"Content-Length: +" + size],
            [b"Content-Length: -" + size],
            [b"Content-Length: 0x%x" % length],
            [b"Content-Length: " + size + b".0"],
            [b"Content-Length: " + size + b"e0"],
            [b"Content-Length: " + size + b";"],
            [b"Content-Length: 1 " + size],
            [b"Content-Length: 1_0"],
            [b"Content-Length: \xb2"],
            [b"Content-Length: " + b"9" * 20],
            [b"Content-Length: 18446744073709551617"],
            [b"Content-Length : " + size],
            [b"Content-Length\t: " + size],
            [b" Content-Length: " + size],
            [b"A: b", b" Content-Length: " + size],
            [b"Content-Length:", b" " + size],
            [b"Content-Length: " + size + b"\x00"],
            [b"A: b\rContent-Length: " + size],
            [b"A: b\nContent-Length: " + size],
            [b"Transfer-Encoding: xchunked"],
            [b"Transfer-Encoding: chunkedx"],
            [b"Transfer-Encoding: chunked, identity"],
            [b"Transfer-Encoding: chunked;a"],
            [b"Transfer-Encoding: \x0bchunked"],
            [b"Transfer-Encoding: chunked\x00"],
            [b'Transfer-Encoding: "chunked"'],
            [b"Transfer-Encoding: identity", cl],
            [b"Transfer-Encoding: identity"],
            [te, b"Transfer-Encoding: identity"],
            [te, b"Transfer-Encoding: x"],
            [b"Transfer-Encoding : chunked"],
            [b"Transfer-Encoding:", b" chunked"],
            [b"A: b\rTransfer-Encoding: chunked"],
            [b"A: b\nTransfer-Encoding: chunked"],
            [b"A: b", b"\tTransfer-Encoding: chunked"],
        ]
    ]


FAULTY_CHUNK_SIZES: Final = [
    b"", b"g", b"-1", b"+1", b"0x1", b" 1", b"1 ", b"1_0", b"1" + b"0" * 16, b"f" * 17,
    b"\xb2", b"1\x00", b"1\n", b"1\r", b"1;a\n", b"\n", b"1.0", b";a",
]  # fmt: skip

FAULTY_HEADERS: Final = [
    b"A: b\x00c\r\n", b"A\x00: b\r\n", b"A: b\rc\r\n", b"A: b\nc\r\n", b"A: b\n", b"A b\r\n",
    b": b\r\n", b"A B: c\r\n", b"A\xff: b\r\n", b"(A): b\r\n", b"A: b\r\n c\r\n",
    b"A: \x01\r\n", b"A: \x7f\r\n", b"\x01: b\r\n", b"A: b\r\r\n", b"A: b\r\n\rB: c\r\n",
    b"X-API-KEY:\r\n " + _KEY + b"\r\n", b"X-API-KEY : " + _KEY + b"\r\n",
    b"A: b\rX-API-KEY: " + _KEY + b"\r\n", b"A: b\nX-API-KEY: " + _KEY + b"\r\n",
    b"A: b\x00X-API-KEY: " + _KEY + b"\r\n",
    b"X-API-KEY: " + _KEY[:5] + b"\r\n " + _KEY[5:] + b"\r\n",
    b"X-API-KEY\x00: " + _KEY + b"\r\n", b"\tX-API-KEY: " + _KEY + b"\r\n",
]  # fmt: skip

FAULTY_LINES: Final = [
    b"POST /callback HTTP/1.2", b"POST /callback HTTP/3.0", b"POST /callback HTTP/11",
    b"POST /callback HTTP/1.1.1", b"POST /callback http/1.1", b"POST /callback HTTP/-1.1",
    b"POST /callback HTTP/1.1 x", b"POST /callback  HTTP/1.1 ", b"POST /callback XTTP/1.1",
    b"post /callback HTTP/1.1", b"POSTT /callback HTTP/1.1", b"P\x00ST /callback HTTP/1.1",
    b"PO ST /callback HTTP/1.1", b"\x00POST /callback HTTP/1.1", b"POST\t/callback HTTP/1.1",
    b"POST callback HTTP/1.1", b"POST /call back HTTP/1.1", b"POST /\xffcallback HTTP/1.1",
    b"POST /callback\x00 HTTP/1.1", b"POST /callback\x01 HTTP/1.1", b"POST http:// HTTP/1.1",
    b"POST http://x HTTP/1.1", b"POST ://x/callback HTTP/1.1", b"POST http://[x/callback HTTP/1.1",
    b"POST HTTP/1.1", b"HTTP/1.1 200 OK", b"PRI * HTTP/2.0", b"CONNECT x:80 HTTP/1.1",
    b"CONNECT /callback HTTP/1.1", b"\x16\x03\x01\x02\x00\x01\x00", b"* /callback HTTP/1.1",
    b"POST /callback HTTP/1.1\rHost: x", b"POST /callback HTTP/1.1\nHost: x",
]  # fmt: skip


def path_of(target: bytes) -> bytes:
    """The path that the service compares: decoded once, without a query."""
    if target.startswith(b"http://"):
        target = b"/" + target.split(b"/", 3)[3]
    return unquote_to_bytes(target.partition(b"?")[0].partition(b"#")[0])
