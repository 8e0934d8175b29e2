"""(a) An empty FastAPI endpoint: the body model, a key dependency, and nothing behind them.

It is what a callback costs before anything is done with it.
"""

from fastapi import Depends, FastAPI

from sam.callback.service.schemas import CallbackPayload
from tests.benchmarks.subjects.common import require_key, serve

app = FastAPI()


@app.post("/callback", dependencies=[Depends(require_key)])
async def callback(payload: CallbackPayload) -> dict[str, str]:
    return {"status": "ok", "deploymentId": payload.deploymentId}


if __name__ == "__main__":
    serve(app)
