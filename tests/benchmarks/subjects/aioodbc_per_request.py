"""(b) FastAPI with one execute and one commit per request, on a connection of aioodbc's pool.

As aioodbc documents it. Its pool has BENCH_POOL_SIZE connections, with a thread for each: by
default asyncio would give them 6 threads on a machine with 2 cores.
"""

import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import aioodbc
from fastapi import Depends, FastAPI

from sam.callback.service.schemas import CallbackPayload
from tests.benchmarks.subjects.common import UPDATE, require_key, serve, setting


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    size = int(setting("BENCH_POOL_SIZE"))
    async with aioodbc.create_pool(
        dsn=setting("SQL_SAM_CONNECTION_STRING"),
        minsize=size,
        maxsize=size,
        executor=ThreadPoolExecutor(size),
    ) as pool:
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/callback", dependencies=[Depends(require_key)])
async def callback(payload: CallbackPayload) -> dict[str, str]:
    async with app.state.pool.acquire() as connection, connection.cursor() as cursor:
        await cursor.execute(UPDATE, payload.status, payload.deploymentId)
        await connection.commit()
    return {"status": "ok", "deploymentId": payload.deploymentId}


if __name__ == "__main__":
    serve(app)
