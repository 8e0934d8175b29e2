"""Body framing: lengths, chunks and trailers are read as HTTP says."""

from tests.support.callbacks import body
from tests.support.databases import SqliteDatabase
from tests.support.raw import KEY_HEADER, Wire
from tests.support.service import Service

CONTENT = body()
CHUNK = b"%x\r\n%b\r\n" % (len(CONTENT), CONTENT)


def chunked(headers: bytes, *, trailers: bytes = b"") -> bytes:
    return (
        b"POST /callback HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%b\r\n%b0\r\n%b\r\n"
        % (headers, CHUNK, trailers)
    )


def test_a_length_may_have_any_number_of_zeros_before_it(service: Service) -> None:
    zeros = b"0" * 5000  # Python's own int() takes 4300 digits
    with Wire(service) as wire:
        wire.send(
            b"POST /callback HTTP/1.1\r\nHost: x\r\n%bContent-Length: %b%d\r\n\r\n%b"
            % (KEY_HEADER, zeros, len(CONTENT), CONTENT)
        )
        assert wire.status() == 200


def test_a_key_behind_the_body_is_no_header(
    service: Service, sqlite_database: SqliteDatabase
) -> None:
    with Wire(service) as wire:
        wire.send(chunked(b"", trailers=KEY_HEADER))
        assert wire.status() == 401
        assert sqlite_database.statuses() == {"d-1": "RUNNING"}
        wire.send(chunked(KEY_HEADER, trailers=b"X-API-KEY: another\r\n"))
        assert wire.status() == 200


BESIDE_A_BODY = {
    "trailers": CHUNK + b"0\r\n" + b"A: b\r\n" * 4000,
    "one long trailer": CHUNK + b"0\r\nA: " + b"b" * 40_000,
    "a chunk's extension": CHUNK + b"1;" + b"b" * 40_000,
}


def test_what_a_body_has_beside_it_may_weigh_as_much_as_headers(service: Service) -> None:
    head = (
        b"POST /callback HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%b\r\n" % KEY_HEADER
    )
    for what, rest in BESIDE_A_BODY.items():
        for pieces in (1, 100):
            size = len(rest) // pieces
            with Wire(service) as wire:
                wire.send(head)
                for start in range(0, len(rest), size):
                    wire.send(rest[start : start + size])
                assert wire.status() == 431, (what, pieces)


def test_a_body_in_many_small_chunks_is_taken(service: Service) -> None:
    head = (
        b"POST /callback HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%b\r\n" % KEY_HEADER
    )
    padded = CONTENT.ljust(50_000)
    with Wire(service) as wire:
        wire.send(head + b"".join(b"1\r\n%c\r\n" % byte for byte in padded) + b"0\r\n\r\n")
        assert wire.status() == 200


def test_a_broken_body_whose_sender_waits_to_be_asked_for_it_is_no_crash(
    service: Service,
) -> None:
    with Wire(service) as wire:
        wire.send(chunked(KEY_HEADER + b"Expect: 100-continue\r\n").replace(CHUNK, b"?\r\n"))
        assert wire.status() == 400
        assert wire.rest() == b""
    assert service.stop() == 0
    assert "crash" not in {line["event"] for line in service.lines}
