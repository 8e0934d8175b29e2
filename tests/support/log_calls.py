"""The log calls of the code, read from its source: the event, its levels and its fields."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sam.callback.inbox.store import Kind

ROOT: Final = Path(__file__).parents[2]
LEVELS: Final = {"debug", "info", "warning", "error", "critical", "exception"}
GATHERED: Final = "line"
"""The holder of the fields that `log_fields` gathers during a request, where they are written."""

COMMON: Final = "request_id"
"""A field of every line of a request: the schema has it once."""

STARRED: Final = {
    "self.counts()": {kind.value for kind in Kind},
    GATHERED: set[str](),
    "details": {"error"},
}
"""The fields of a `**`."""


@dataclass(frozen=True)
class LogCall:
    """One place in the code that writes an event.

    Attributes:
        place: The file and the line.
        levels: At which levels it may do so.
        fields: What it surely writes beside the common fields.
        is_gathered: Whether the fields that a request has gathered come too.
    """

    place: str
    levels: frozenset[str]
    fields: frozenset[str]
    is_gathered: bool


def log_calls() -> dict[str, list[LogCall]]:
    """Return every log call of the package, by its event.

    Raises:
        AssertionError: If one cannot be read so: events are literals, fields are keywords.
    """
    found = defaultdict(list)
    for path in sorted((ROOT / "sam").rglob("*.py")):
        for event, call in _Module(path).calls():
            found[event].append(call)
    return found


def gathered_fields() -> set[str]:
    """Return the fields that requests gather for their line, from the whole service."""
    fields = set[str]()
    for path in sorted((ROOT / "sam/callback/service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Assign(
                    targets=[ast.Subscript(value=of, slice=ast.Constant(value=str(name)))]
                ):
                    names = {name}
                case ast.Call(func=ast.Attribute(value=of, attr="update"), keywords=keywords):
                    names = {keyword.arg for keyword in keywords if keyword.arg}
                case ast.Call(
                    func=ast.Attribute(value=of, attr="setdefault"),
                    args=[ast.Constant(value=str(name)), _],
                ):
                    names = {name}
                case _:
                    continue
            if ast.unparse(of).startswith(("log_fields(", GATHERED)):
                fields |= names
    return fields - {"event", COMMON}


class _Module:
    def __init__(self, path: Path) -> None:
        self._name = str(path.relative_to(ROOT))
        self._tree = ast.parse(path.read_text(encoding="utf-8"))
        self._loggers: dict[str, list[ast.expr]] = defaultdict(list)
        """Names that stand for `_log.error` and the like, or for a function that passes it on."""

        for node in ast.walk(self._tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)]) if _levels_in(node.value):
                    self._loggers[name].append(node.value)
                case ast.FunctionDef(name=name, args=arguments):
                    parameters = {argument.arg for argument in arguments.args}
                    self._loggers[name] += [
                        call
                        for call in ast.walk(node)
                        if isinstance(call, ast.Call) and _passes_on(call, parameters)
                    ]
                case _:
                    pass

    def calls(self) -> Iterator[tuple[str, LogCall]]:
        passed_on = {id(logger) for loggers in self._loggers.values() for logger in loggers}
        for node in ast.walk(self._tree):
            if not isinstance(node, ast.Call) or id(node) in passed_on:
                continue
            logger = node.func
            keywords = list(node.keywords)
            if isinstance(logger, ast.Name) and self._loggers.get(logger.id):
                # The assignment above; a function may also be defined further down.
                candidates = self._loggers[logger.id]
                above = [each for each in candidates if each.lineno <= node.lineno]
                logger = (above or candidates)[-1]
                if isinstance(logger, ast.Call):
                    keywords += logger.keywords
            elif not (isinstance(logger, ast.Attribute) and _is_logger(logger.value)):
                continue
            if isinstance(logger, ast.Attribute) and logger.attr == "is_enabled_for":
                continue
            place = f"{self._name}:{node.lineno}"
            levels = _levels_in(logger)
            event = node.args[0] if node.args else None
            assert levels, f"{place}: none of the methods {sorted(LEVELS)}"
            assert isinstance(event, ast.Constant), f"{place}: the event must be a literal string"
            yield str(event.value), _log_call(place, levels, keywords)


def _log_call(place: str, levels: set[str], keywords: list[ast.keyword]) -> LogCall:
    fields = {keyword.arg for keyword in keywords if keyword.arg}
    starred = {ast.unparse(keyword.value) for keyword in keywords if not keyword.arg}
    for name in starred:
        assert name in STARRED, f"{place}: say in {__name__}.STARRED what **{name} brings along"
        fields |= STARRED[name]
    if "exception" in levels:
        levels = levels - {"exception"} | {"error"}
        fields.add("exception")
    if "exc_info" in fields:
        fields = fields - {"exc_info"} | {"exception"}
    return LogCall(place, frozenset(levels), frozenset(fields - {COMMON}), GATHERED in starred)


def _is_logger(node: ast.AST) -> bool:
    match node:
        case ast.Name(id="_log") | ast.Call(func=ast.Name(id="get_logger")):
            return True
        case _:
            return False


def _passes_on(call: ast.Call, parameters: set[str]) -> bool:
    match call.args:
        case [ast.Name(id=event)]:
            return event in parameters and bool(_levels_in(call.func))
        case _:
            return False


def _levels_in(node: ast.AST) -> set[str]:
    return {
        each.attr
        for each in ast.walk(node)
        if isinstance(each, ast.Attribute) and each.attr in LEVELS and _is_logger(each.value)
    }
