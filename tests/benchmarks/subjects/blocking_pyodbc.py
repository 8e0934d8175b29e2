"""(c) FastAPI with a synchronous pyodbc call inside an async endpoint.

As it is often seen: the event loop stands still while the database works. To its favour the
connection is kept; many deployments connect anew for each request.
"""

import contextlib
from collections.abc import AsyncIterator

import pyodbc
from fastapi import Depends, FastAPI

from sam.callback.service.schemas import CallbackPayload
from tests.benchmarks.subjects.common import UPDATE, require_key, serve, setting


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.connection = pyodbc.connect(setting("SQL_SAM_CONNECTION_STRING"))
    yield
    app.state.connection.close()


app = FastAPI(lifespan=lifespan)


@app.post("/callback", dependencies=[Depends(require_key)])
async def callback(payload: CallbackPayload) -> dict[str, str]:
    connection: pyodbc.Connection = app.state.connection
    cursor = connection.cursor()
    cursor.execute(UPDATE, payload.status, payload.deploymentId)
    connection.commit()
    cursor.close()
    return {"status": "ok", "deploymentId": payload.deploymentId}


if __name__ == "__main__":
    serve(app)
