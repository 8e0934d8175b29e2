"""The body of a request: read whole, no larger and no slower than is allowed."""

import asyncio
from typing import Final

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from sam.callback.reasons import RefusalReason
from sam.callback.service.request_log import line_of

BODY_IS_HERE: Final = "sam.callback.body_is_here"
"""In a request's scope once its whole body was received: then no clock need run."""


async def read_body(request: Request, *, max_bytes: int, timeout: float) -> bytes:
    """Read the whole body.

    Args:
        request: The request, its body not yet read.
        max_bytes: The largest body; a larger one is not read to its end, nor at all where
            Content-Length tells.
        timeout: Seconds until the last byte.

    Raises:
        HTTPException: 413 if it is too large, 408 if it is too slow.
        starlette.requests.ClientDisconnect: If the sender hung up.
    """
    for name, value in request.scope["headers"]:
        if name == b"content-length":
            # HTTP allows zeros before it, without limit; Python does not.
            length = value.lstrip(b"0")
            if length.isdigit() and int(length) > max_bytes:
                raise _too_large(request, max_bytes)
    if BODY_IS_HERE in request.scope:
        return await _read(request, max_bytes)
    try:
        async with asyncio.timeout(timeout):
            return await _read(request, max_bytes)
    except TimeoutError:
        line_of(request.scope)["reason"] = RefusalReason.BODY_TOO_SLOW
        raise HTTPException(
            408,
            f"The body took more than {timeout:g} seconds.",
            headers={"Connection": "close"},  # its rest may never come
        ) from None


async def _read(request: Request, max_bytes: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    is_complete = False
    while not is_complete:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        chunks.append(chunk)
        size += len(chunk)
        if size > max_bytes:
            raise _too_large(request, max_bytes)
        is_complete = not message.get("more_body", False)
    return b"".join(chunks)


def _too_large(request: Request, max_bytes: int) -> HTTPException:
    line_of(request.scope)["reason"] = RefusalReason.BODY_TOO_LARGE
    return HTTPException(
        413,
        f"The body is larger than {max_bytes} bytes.",
        headers={"Connection": "close"},  # it may be more than is read of what nobody wants
    )
