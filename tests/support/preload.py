"""Preloaded imports of a service, for the process that the tests fork services from."""

import gc
import importlib

from sam.callback.settings import Settings

for _name in (
    "sam.callback.cli.check",
    "sam.callback.cli.send",
    "sam.callback.cli.serve",
    "sam.callback.cli.simulate",
    "sam.callback.cli.spool",
    "sam.callback.service.main",
    "sam.callback.server.server",
    # What they import no earlier than a service starts.
    "encodings.idna",
    "pydantic.v1",
    "typer._click.decorators",
    "uvicorn.lifespan.on",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.auto",
):
    importlib.import_module(_name)

# Pydantic completes a model when it is first used.
Settings(callback_api_key="k", sql_sam_connection_string="x", _env_file=None)

gc.collect()
gc.freeze()  # a service looks for garbage as it starts: not among all this
