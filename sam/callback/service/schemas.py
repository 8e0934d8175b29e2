"""Schemas of the callback's body and of the answers, with examples for the OpenAPI document."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter

from sam.callback.limits import MAX_DEPLOYMENT_ID_LENGTH, MAX_STATUS_LENGTH
from sam.callback.model import Outcome

# No control character: they are of no use in an id or a status, and forge lines where they are
# printed. Surrounding white space has been stripped before this looks.
_NO_CONTROL_CHARACTERS = r"^[^\x00-\x1f\x7f-\x9f]*$"


def _text(max_length: int) -> StringConstraints:
    return StringConstraints(
        strip_whitespace=True, min_length=1, max_length=max_length, pattern=_NO_CONTROL_CHARACTERS
    )


class CallbackPayload(BaseModel):
    """The body that A360 POSTs when a deployment ends; other fields are ignored.

    Source: Automation 360, "Bot Deploy API", ``callbackInfo``.
    """

    model_config = ConfigDict(
        extra="ignore",
        json_schema_extra={
            "examples": [
                {
                    "userId": "4934",
                    "deviceId": "44",
                    "deploymentId": "f6d30428-15d1-41e9-a952-0742eaaa5a31",
                    "status": "RUN_COMPLETED",
                    "botOutput": {"oResult": {"type": "STRING", "string": "done"}},
                }
            ]
        },
    )

    deploymentId: Annotated[str, _text(MAX_DEPLOYMENT_ID_LENGTH)] = Field(  # noqa: N815 - A360's spelling
        description="The deployment that ended."
    )
    status: Annotated[str, _text(MAX_STATUS_LENGTH)] = Field(
        description="How it ended. Any value is taken: new ones appear without notice."
    )


@dataclass(kw_only=True)
class CallbackAnswer:
    """The answer to a callback that is durable."""

    # No pydantic model: with its JSON that would be 3 % of a callback.

    status: Literal["ok"] = "ok"
    outcome: Annotated[Outcome, Field(description="What became of the callback.")]
    deploymentId: Annotated[str, Field(description="The deployment, as understood.")]  # noqa: N815 - A360's spelling
    requestId: Annotated[str, Field(description="The request's id, also in the log.")]  # noqa: N815 - goes with it


class HealthAnswer(BaseModel):
    """The answer while the process lives."""

    status: Literal["ok"] = "ok"


class _Entries(BaseModel):
    queued: int = Field(description="Callbacks that wait for the database.")
    unmatched: int = Field(description="Callbacks that wait for their row.")
    dead_letter: int = Field(description="Callbacks that the database refuses.")
    invalid: int = Field(description="Bodies that were not understood.")


class SpoolState(_Entries):
    """The entries of the spool."""

    bytes: int = Field(description="Their size, roughly.")
    writable: bool = Field(
        description="Whether it can be used: the last write succeeded, and no read failed since."
    )


class InboxState(_Entries):
    """The entries of the shared inbox, as of some seconds ago."""

    up: bool = Field(description="Whether it answers; if not, the spool is used.")


class ReadyAnswer(BaseModel):
    """Whether callbacks can be made durable; with the key, why."""

    status: Literal["ok", "degraded", "unavailable", "draining"]
    database: Literal["up", "down", "unknown"] | None = Field(
        None, description="Whether writes to it are committed."
    )
    spool: SpoolState | None = None
    inbox: InboxState | None = Field(None, description="Where there is a shared inbox.")


class ErrorAnswer(BaseModel):
    """The answer to a request that was refused."""

    detail: str = Field(description="What happened, for a person.")


class InvalidField(BaseModel):
    """One thing that is wrong with a body."""

    type: str = Field(description="The kind of mistake.")
    loc: list[str | int] = Field(description="Where: the path to the field.")
    msg: str = Field(description="What is wrong with it.")


class InvalidAnswer(BaseModel):
    """The answer to a body that was not understood."""

    detail: list[InvalidField]


def example_response(
    description: str, example: object, headers: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """Return what FastAPI's ``responses`` say of an answer.

    Args:
        description: When it is given.
        example: One such answer.
        headers: Descriptions of its headers, by their names.
    """
    content = TypeAdapter(type(example)).dump_python(example, mode="json", exclude_none=True)
    return {
        "model": type(example),
        "description": description,
        "content": {"application/json": {"example": content}},
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in headers.items()
        },
    }
