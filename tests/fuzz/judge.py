"""Checks of the service's answers, and of the callbacks that it recorded."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, Final

from tests.fuzz.conversation import Conversation, End, Request
from tests.fuzz.wire import Answer, Held

# The last one depends on what else came over the connection.
_UNREPEATABLE: Final = {"date", "x-request-id", "connection"}
_SHOWN: Final = 3_000


class Judge:
    """Collects what is wrong.

    Args:
        refusal: The answer to a request without the key: all others must be the same.

    Attributes:
        faults: What is wrong, with the conversation.
        counts: How many answers there were, by status.
    """

    def __init__(self, refusal: Answer) -> None:
        self._refusal = _repeatable(refusal)
        self._refusal_body = refusal.body
        self.faults: list[str] = []
        self.counts: Counter[str] = Counter()
        self._acknowledged: Counter[str] = Counter()
        self._taken: list[Request] = []
        self._never: list[tuple[str, Conversation]] = []
        self._maybe: list[tuple[str, Conversation]] = []

    def hear(self, held: Held) -> None:
        """Judge one conversation by its answers."""
        said = held.conversation
        self._note(held)
        unanswered = said.size - min(said.size, len(held.answers))
        self.counts["closed without an answer"] += unanswered
        if held.problem:
            self._fault(held.problem, said)
        for answer in held.answers:
            self.counts[str(answer.status)] += 1
            self._hear_answer(answer, said)
        for request, answer in zip(said.requests, held.answers, strict=False):
            self._hear_expected(request, answer, said)
        self._hear_rest(held, held.answers[len(said.requests) :])

    def close_account(
        self,
        lines: Iterable[Mapping[str, Any]],
        statuses: Mapping[str, str],
        spool: Mapping[str, tuple[str, str]],
    ) -> None:
        """Judge what was recorded in all.

        Args:
            lines: What the service logged.
            statuses: What the database has.
            spool: What the spool has, by deployment.
        """
        recorded: Counter[str] = Counter()
        for line in lines:
            if line["event"] == "callback" and line["http_status"] == HTTPStatus.OK:
                recorded[line["deployment_id"]] += 1
            if line["event"] == "crash":
                self.faults.append(f"a crash: {line}")
        changed = {name for name, status in statuses.items() if status != "RUNNING"}
        for request in self._taken:
            name = request.deployment_id
            times = recorded[name]
            if times != 1 or statuses.get(name) != request.status:
                self.faults.append(f"{name} was recorded {times} times: {statuses.get(name)}")
        for name, said in self._never:
            if recorded[name] or name in changed or name in spool:
                self._fault(f"{name} was recorded, {recorded[name]} times", said)
        for name, said in self._maybe:
            if recorded[name] < self._acknowledged[name]:
                self._fault(f"{name} was acknowledged, and not recorded", said)

    def _note(self, held: Held) -> None:
        said = held.conversation
        for number, request in enumerate(said.requests):
            if request.is_taken and not (held.was_ended and number >= len(held.answers)):
                self._taken.append(request)
            else:
                self._never.append((request.deployment_id, said))
        if said.tail is not None:
            self._never += [(name, said) for name in said.tail.never]
            self._maybe += [(name, said) for name in said.tail.maybe]

    def _hear_answer(self, answer: Answer, said: Conversation) -> None:
        may_come_again = answer.status == HTTPStatus.SERVICE_UNAVAILABLE and answer.header(
            "retry-after"
        )
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not may_come_again:
            self._fault(f"{answer.status}: {answer.body!r}", said)
        if answer.header("server") or b"Traceback" in answer.body:
            self._fault(f"the answer tells too much: {answer}", said)
        if answer.header("content-type") == "application/json" and answer.body:
            content = json.loads(answer.body)
            if answer.status == HTTPStatus.OK and "outcome" in content:
                self._acknowledged[content["deploymentId"]] += 1

    def _hear_expected(self, request: Request, answer: Answer, said: Conversation) -> None:
        if answer.status not in request.statuses:
            self._fault(f"{request.data!r} is answered {answer.status}", said)
        elif answer.status == HTTPStatus.UNAUTHORIZED:
            body = b"" if request.is_head else self._refusal_body
            if _repeatable(answer) != self._refusal or answer.body != body:
                self._fault(f"{request.data!r} is answered otherwise: {answer}", said)
        elif request.is_taken:
            content = json.loads(answer.body)
            if content["deploymentId"] != request.deployment_id or content["outcome"] != "updated":
                self._fault(f"{request.data!r} is answered {content}", said)

    def _hear_rest(self, held: Held, answers: list[Answer]) -> None:
        said = held.conversation
        tail = said.tail
        if tail is None or held.was_ended:
            if answers:
                self._fault(f"answered once too often: {answers}", said)
            return
        if not tail.statuses:
            return
        for answer in answers:
            if answer.status not in tail.statuses:
                self._fault(f"{tail.kind} is answered {answer.status}", said)
        if len(answers) > 1:
            self._fault(f"{tail.kind} is answered {len(answers)} times", said)
        # Behind others it may find the connection closed after their answers.
        if not (answers or said.requests or held.was_reset or tail.end is End.OURS):
            self._fault(f"{tail.kind} is not answered", said)

    def _fault(self, what: str, said: Conversation) -> None:
        tail = said.tail.kind if said.tail else "no tail"
        self.faults.append(
            f"conversation {said.name} ({tail}): {what[:_SHOWN]}\n"
            f"  borders {said.borders}, sent {said.data[:_SHOWN]!r}"
        )


def _repeatable(answer: Answer) -> list[tuple[str, str]]:
    return sorted(header for header in answer.headers if header[0] not in _UNREPEATABLE)
