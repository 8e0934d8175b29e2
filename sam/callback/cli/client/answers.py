"""What an answer to a callback means for whoever sent it."""

from enum import Enum
from http import HTTPStatus
from typing import Final

import httpx
from pydantic import ValidationError

from sam.callback.service.schemas import CallbackAnswer

_TEXT_LENGTH: Final = 300
"""Characters of a stranger's text that are shown."""


class Fault(Enum):
    """Why a callback was not taken, or is not known to be.

    Attributes:
        exit_status: How ``send`` ends.
        meaning: The fault, for a person.
    """

    REFUSED = 1, "another answer than those below"
    UNREACHABLE = 3, "cannot connect: nothing was sent"
    NO_ANSWER = 4, "sent, but no answer in time: it may have been taken"
    TLS = 5, "no safe connection: nothing was sent"
    WRONG_KEY = 6, "the key is refused (401)"
    INVALID = 7, "the body is not understood (422)"
    TOO_LARGE = 8, "the body is too large (413)"
    UNAVAILABLE = 9, "the service cannot make it safe now (503)"
    NOT_THIS_SERVICE = 10, "what answered is not this service"

    def __init__(self, exit_status: int, meaning: str) -> None:
        self.exit_status = exit_status
        self.meaning = meaning

    @property
    def label(self) -> str:
        """Its name in JSON."""
        return self.name.lower()


class NotTakenError(Exception):
    """The callback was not taken, or is not known to be; the message is for a person.

    Args:
        fault: Why.
        message: What happened, what it means, what to do.
        http_status: The answer's status, if there was an answer.
        retry_after: The answer's ``Retry-After``, as it came.
    """

    def __init__(
        self,
        fault: Fault,
        message: str,
        *,
        http_status: int | None = None,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.http_status = http_status
        self.retry_after = retry_after


def read_answer(response: httpx.Response) -> CallbackAnswer:
    """Return what the service says became of the callback.

    Raises:
        NotTakenError: If it was refused, or this is not the answer of this service.
    """
    if response.is_success:
        try:
            return CallbackAnswer.model_validate_json(response.content)
        except ValidationError:
            raise _not_this_service(response) from None
    detail = _detail(response)
    if detail is None:
        raise _not_this_service(response)
    fault, message = _refusal(response, detail)
    raise NotTakenError(
        fault,
        message,
        http_status=response.status_code,
        retry_after=response.headers.get("Retry-After"),
    )


def printable(text: str) -> str:
    """Return a stranger's text on one line, bounded, without what a terminal would obey."""
    line = " ".join("".join(each if each.isprintable() else " " for each in text).split())
    return line if len(line) <= _TEXT_LENGTH else f"{line[:_TEXT_LENGTH]}..."


def _detail(response: httpx.Response) -> object:
    """Return FastAPI's ``detail``, or None if this is not its kind of answer."""
    try:
        content = response.json()
    except ValueError:
        return None
    return content.get("detail") if isinstance(content, dict) else None


def _refusal(response: httpx.Response, detail: object) -> tuple[Fault, str]:
    text = printable(str(detail))
    match response.status_code:
        case HTTPStatus.UNAUTHORIZED:
            return Fault.WRONG_KEY, (
                "The service refuses the key (401).\n"
                "CALLBACK_API_KEY here must be the service's CALLBACK_API_KEY, or its "
                "CALLBACK_API_KEY_PREVIOUS."
            )
        case HTTPStatus.UNPROCESSABLE_ENTITY:
            mistakes = "".join(f"  {mistake}\n" for mistake in _mistakes(detail))
            return Fault.INVALID, (
                f"The service does not understand the body (422):\n{mistakes}"
                "It has kept the body for an operator: `sam-callback spool list --kind invalid`, "
                "on its machine."
            )
        case HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return Fault.TOO_LARGE, (
                f"The body is too large (413): {text}\n"
                "The limit is the service's CALLBACK_MAX_BODY_BYTES."
            )
        case HTTPStatus.SERVICE_UNAVAILABLE:
            after = printable(response.headers.get("Retry-After", ""))
            when = f"It asks to be tried again after {after} s.\n" if after.isdecimal() else ""
            return Fault.UNAVAILABLE, (
                f"The service cannot make a callback safe now (503): {text}\n{when}"
                "A360 would have lost this callback. The service's log and /ready say why."
            )
        case HTTPStatus.NOT_FOUND | HTTPStatus.METHOD_NOT_ALLOWED as status:
            return Fault.REFUSED, (
                f"There is nothing at {response.url.path} that takes callbacks ({status:d}).\n"
                "The service takes them at /callback: see --url."
            )
        case status:
            return Fault.REFUSED, f"The service refuses the callback ({status}): {text}"


def _mistakes(detail: object) -> list[str]:
    """Return FastAPI's list of mistakes, one line each."""
    if not isinstance(detail, list):
        return [printable(str(detail))]
    lines = []
    for mistake in detail:
        location, message = mistake.get("loc", []), mistake.get("msg", "")
        where = ".".join(str(each) for each in location if each != "body")
        lines.append(printable(f"{where or 'the whole body'}: {message}"))
    return lines


def _not_this_service(response: httpx.Response) -> NotTakenError:
    status = response.status_code
    kind = printable(response.headers.get("Content-Type", "")) or "no content type"
    lines = [f"What answers at {response.url} is not this service: {status}, {kind}."]
    if response.has_redirect_location:
        lines.append(
            f"It redirects to {printable(response.headers['Location'])}. If that is the service, "
            "give that address to --url, and to A360: a redirect is not followed."
        )
    elif response.is_server_error:
        lines.append("A proxy answers so while the service behind it cannot be reached.")
    else:
        lines.append("Is the address right, and does a proxy on the way let callbacks through?")
    lines.append("The callback is not known to have been taken.")
    return NotTakenError(Fault.NOT_THIS_SERVICE, "\n".join(lines), http_status=status)
