"""Request body reader, with bounds on size, time and memory."""

import asyncio
from typing import Final

from fastapi import Request
from starlette.requests import ClientDisconnect

from sam.callback import http_scope
from sam.callback.http_scope import Refusal
from sam.callback.metrics import RefusalReason
from sam.callback.service.body_budget import UNCOUNTED_BYTES, BodyShare, NoRoomError

BODY_START_BYTES: Final = 2**16
"""So much is read of a body that is too large, as it may say whose it is."""


async def read_body(request: Request, share: BodyShare, max_bytes: int, timeout: float) -> bytes:
    """Read the whole body of a request.

    Args:
        request: The request, its body not yet read.
        share: What it may take of the memory for all bodies. Without room nothing more is read:
            for the time that a body may take, and this is none of the sender's.
        max_bytes: How much it may be.
        timeout: How many seconds it may take.

    Raises:
        Refusal: If it is too large, too slow or no valid HTTP, or no room was found.
        starlette.requests.ClientDisconnect: If the sender hung up.
    """
    is_here = http_scope.BODY_END in request.scope  # all of it: no clock need run
    is_too_large = not is_here and _length(request) > max_bytes
    read_bytes = min(BODY_START_BYTES, max_bytes) if is_too_large else max_bytes
    chunks: list[bytes] = []

    def refusal(status: int, reason: RefusalReason, detail: str) -> Refusal:
        return Refusal(status, reason, detail, b"".join(chunks)[:BODY_START_BYTES])

    try:
        if is_here:
            size = await _collect(request, share, chunks, read_bytes, None)
        else:
            async with asyncio.timeout(timeout) as clock:
                size = await _collect(request, share, chunks, read_bytes, clock)
        is_too_large = is_too_large or size > read_bytes
    except NoRoomError:
        detail = "Too many large bodies at once. Send it again."
        raise refusal(503, RefusalReason.OVERLOADED, detail) from None
    except TimeoutError:
        if not is_too_large:
            detail = f"The body took more than {timeout:g} seconds."
            raise refusal(408, RefusalReason.BODY_TOO_SLOW, detail) from None
    if broken := request.scope.get(http_scope.BODY_END):
        raise refusal(broken.status, broken.reason, str(broken))
    if is_too_large:
        detail = f"The body is larger than {max_bytes} bytes."
        raise refusal(413, RefusalReason.BODY_TOO_LARGE, detail)
    return b"".join(chunks)


async def _collect(
    request: Request,
    share: BodyShare,
    chunks: list[bytes],
    max_bytes: int,
    clock: asyncio.Timeout | None,
) -> int:
    """Read until the end, or until there is more than so much; return how much there is.

    By hand: `Request.stream`, and a clock that does not run, would be 5 % of a callback.
    """
    size = 0
    is_complete = False
    while not is_complete and size <= max_bytes:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        is_complete = not message.get("more_body", False)
        if UNCOUNTED_BYTES < size <= max_bytes and not share.grow(size):
            await _wait_for_room(share, size, clock)
    return size


async def _wait_for_room(share: BodyShare, size: int, clock: asyncio.Timeout | None) -> None:
    deadline, began = clock.when() if clock else None, asyncio.get_running_loop().time()
    if clock:
        clock.reschedule(None)
    await share.wait_for_room(size)
    if clock and deadline:
        clock.reschedule(deadline + asyncio.get_running_loop().time() - began)


def _length(request: Request) -> int:
    """Return what Content-Length says; 0 if there is none."""
    # HTTP allows zeros before it, without limit; Python does not.
    length = request.headers.get("content-length", "").lstrip("0")
    return int(length) if length.isdecimal() else 0
