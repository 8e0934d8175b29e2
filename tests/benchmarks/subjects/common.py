"""Common parts of the subjects: settings, the stock key check, and uvicorn as the service has it.

The variables are the service's own, so that one environment starts any of them.
"""

import os
import secrets
from typing import Annotated, Final

import uvicorn
from fastapi import HTTPException, Security
from fastapi.security import APIKeyHeader
from starlette.types import ASGIApp

UPDATE: Final = 'UPDATE robots SET status = ? WHERE "deploymentId" = ?'


def setting(name: str) -> str:
    """Read a variable that must be there."""
    return os.environ[name]


_key_header = APIKeyHeader(name="X-API-KEY")


async def require_key(key: Annotated[str, Security(_key_header)]) -> None:
    """Check the key as FastAPI's documentation shows it: a dependency on a header."""
    if not secrets.compare_digest(key.encode(), setting("CALLBACK_API_KEY").encode()):
        raise HTTPException(401)


def serve(app: ASGIApp) -> None:
    """Serve with what the service has: uvloop, httptools, one process, no access log."""
    config = uvicorn.Config(
        app,
        host=setting("CALLBACK_HOST"),
        port=int(setting("CALLBACK_PORT")),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="auto",
        log_level="warning",
        access_log=False,
        server_header=False,
    )
    uvicorn.Server(config).run()
