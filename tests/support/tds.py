"""A stand-in for SQL Server that hears ODBC drivers: logins, statements, how values are bound.

It speaks TDS 7.4 without encryption, and answers what a test tells it to. It knows no SQL: that a
statement means what it should, only a real server shows.
"""

import contextlib
import platform
import re
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import mssql_python_odbc

from tests.support import tds_wire as wire
from tests.support.service import PATIENT_SETTINGS
from tests.support.tds_wire import Parameter, Reader

_BATCH, _CALL, _ATTENTION, _TRANSACTION, _LOGIN, _PRELOGIN = 1, 3, 6, 14, 16, 18
_BEGIN, _COMMIT = 5, 7
_TRANSACTION_ID: Final = bytes(range(1, 9))
_PROCEDURES: Final = {10: "sp_executesql", 11: "sp_prepare", 12: "sp_execute", 13: "sp_prepexec"}
_PACKET: Final = 4000
# What pyodbc asks for first: ODBC's types, and how long a value of each may be.
_PRECISIONS: Final = {12: 8000, -9: 4000, 65527: 4000, -3: 8000, 65533: 8000, 93: 27}


@dataclass(frozen=True)
class Count:
    """The number of rows a statement met; None where the server does not say (SET NOCOUNT ON)."""

    rows: int | None


@dataclass(frozen=True)
class Error:
    """The server's message about a statement, or a login, that failed."""

    number: int
    message: str = "Something is wrong."


@dataclass(frozen=True)
class Rows:
    """A result set, of numbers, texts and texts that are NULL."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int | str | None, ...], ...] = ()


@dataclass(frozen=True)
class Statement:
    """A statement: its text, the values bound to it, and the procedure that executes it, if any."""

    text: str
    parameters: tuple[Parameter, ...] = ()
    procedure: str = ""


@dataclass(frozen=True)
class Login:
    """A login, as the driver made it of a connection string."""

    user: str
    password: str
    application: str
    database: str
    is_read_only: bool


Answer = Count | Error | Rows


@dataclass
class TdsServer:
    """A server, and what it has heard.

    Attributes:
        port: Where it listens.
        answer: Gives the results of a statement, one after the other; none where it hangs, until
            the driver gives it up.
        login_error: What every login is refused with, if set.
        ignores_case: Whether texts that differ in case are the same to it, where its catalogue does
            not tell; None where it does not compare either.
        declarations: The types of the values of each statement that was prepared, as T-SQL.
    """

    port: int = 0
    answer: Callable[[Statement], list[Answer]] = lambda _: [Count(None)]
    login_error: Error | None = None
    ignores_case: bool | None = False
    logins: list[Login] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    declarations: list[str] = field(default_factory=list)

    def heard(self, beginning: str) -> list[Statement]:
        """The statements that began so."""
        return [each for each in self.statements if each.text.startswith(beginning)]

    def respond(self, statement: Statement) -> list[Answer]:
        if "sp_datatype_info" in statement.text:
            numbers = re.findall(r"-?\d+", statement.text.partition(" ")[2])
            kind = int(numbers[0]) if numbers else statement.parameters[0].value
            return [Rows(("NAME", "TYPE", "PRECISION"), (("", kind, _PRECISIONS[kind]),))]
        self.statements.append(statement)
        if statement.text.endswith("AS probe"):  # spellings of one text, compared
            if self.ignores_case is None:
                return [Error(208, "Invalid object name 'robots'.")]
            [text] = re.findall(r"UNION ALL SELECT '(.*)'", statement.text)
            spellings = re.findall(r"k = '(.*?)'", statement.text)
            same = [int(self.ignores_case and each.lower() == text.lower()) for each in spellings]
            return [Rows(tuple(map(str, range(len(same)))), (tuple(same),))]
        return self.answer(statement)


def types(*columns: tuple[str, int, str | None]) -> Rows:
    """The catalogue's answer about columns: type, bytes, collation."""
    return Rows(("system_type_name", "max_length", "collation_name"), columns)


@contextmanager
def tds_server(host: str = "127.0.0.1") -> Iterator[TdsServer]:
    """A server on a port of its own."""
    state = TdsServer()

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(ConnectionError, EOFError):
                _Conversation(state, self.request).run()

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        address_family: int = socket.AF_INET6 if ":" in host else socket.AF_INET

    with Server((host, 0), Handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def settings_for_sql_server(port: int) -> dict[str, Any]:
    """Settings that lead to a port by Microsoft's driver."""
    bundled = mssql_python_odbc.get_libs_dir()
    [library] = Path(bundled).glob(f"linux/debian_ubuntu/{platform.machine()}/lib/libmsodbcsql*")
    return {
        "sql_sam_driver": str(library),
        "sql_sam_server": f"127.0.0.1,{port}",
        "sql_sam_database": "SAM",
        "sql_sam_user": "sam",
        "sql_sam_password": "hush-hush",
        "sql_sam_encrypt": "no",
        "sql_sam_pool_max": 1,  # so that what is heard has one order
        **PATIENT_SETTINGS,
    }


class _Conversation:
    """One connection."""

    def __init__(self, server: TdsServer, connection: socket.socket) -> None:
        self._server = server
        self._connection = connection
        self._prepared: list[str] = []

    def run(self) -> None:
        actions = {
            _PRELOGIN: lambda _: wire.prelogin(),
            _LOGIN: self._log_in,
            _BATCH: self._run_batch,
            _CALL: self._call,
            _ATTENTION: lambda _: wire.done(wire.DONE, wire.CANCELLED),
            _TRANSACTION: self._change_transaction,
        }
        while True:
            kind, body = self._receive()
            self._send(actions[kind](body))

    def _receive(self) -> tuple[int, bytes]:
        body = b""
        while True:
            kind, status, length = struct.unpack(">BBH4x", self._read(8))
            body += self._read(length - 8)
            if status & 1:
                return kind, body

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self._connection.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data

    def _send(self, body: bytes) -> None:
        for start in range(0, len(body), _PACKET):
            part = body[start : start + _PACKET]
            is_last = start + _PACKET >= len(body)
            head = struct.pack(">BBHHBB", 4, is_last, len(part) + 8, 0, 1, 0)
            self._connection.sendall(head + part)

    def _log_in(self, body: bytes) -> bytes:
        def data(offset: int) -> bytes:
            start, length = struct.unpack_from("<HH", body, offset)
            return body[start : start + 2 * length]

        user, application, database = (data(at).decode("utf-16-le") for at in (40, 48, 68))
        password = wire.unscramble(data(44)).decode("utf-16-le")
        is_read_only = bool(body[26] & 0x20)
        self._server.logins.append(Login(user, password, application, database, is_read_only))
        if error := self._server.login_error:
            return wire.error(error.number, error.message) + wire.done(wire.DONE, wire.FAILED)
        return wire.login_accepted(database)

    def _run_batch(self, body: bytes) -> bytes:
        reader = Reader(body)
        reader.skip_headers()
        text = reader.take(len(body)).decode("utf-16-le")
        answers = self._server.respond(Statement(text))
        if not answers:
            return b""
        *others, last = answers
        return b"".join(_result(each, wire.DONE, more=each is not last) for each in [*others, last])

    def _change_transaction(self, body: bytes) -> bytes:
        reader = Reader(body)
        reader.skip_headers()
        request = reader.number(2)
        changes = b""
        begins = request == _BEGIN
        if not begins:
            is_commit = request == _COMMIT
            self._server.ends.append("COMMIT" if is_commit else "ROLLBACK")
            changes += wire.environment(9 if is_commit else 10, b"\0\x08" + _TRANSACTION_ID)
            reader.take(reader.number(1))  # its name
            begins = bool(reader.number(1) & 1)
        if begins:
            changes += wire.environment(8, b"\x08" + _TRANSACTION_ID + b"\0")
        return changes + wire.done(wire.DONE)

    def _call(self, body: bytes) -> bytes:
        reader = Reader(body)
        reader.skip_headers()
        length = reader.number(2)
        name = (
            _PROCEDURES.get(reader.number(2), "another")
            if length == wire.MAX
            else reader.text(length)
        )
        reader.take(2)
        parameters = []
        while reader:
            parameters.append(reader.parameter())
        handle = b""
        text, values = name, parameters
        if name in {"sp_prepexec", "sp_prepare"}:
            text, values = parameters[2].value, parameters[3:]
            self._prepared.append(text)
            self._server.declarations.append(parameters[1].value)
            handle = wire.return_value(len(self._prepared))
            if name == "sp_prepare":
                return wire.return_status() + handle + wire.done(wire.DONE_PROCEDURE)
        elif name == "sp_execute":
            text, values = self._prepared[parameters[0].value - 1], parameters[1:]
        elif name == "sp_executesql":
            text, values = parameters[0].value, parameters[2:]
        answers = self._server.respond(Statement(text, tuple(values), name))
        if not answers:
            return b""
        results = b"".join(_result(each, wire.DONE_IN_PROCEDURE, more=True) for each in answers)
        has_failed = any(isinstance(each, Error) for each in answers)
        return (
            results
            + wire.return_status()
            + handle
            + wire.done(wire.DONE_PROCEDURE, wire.FAILED if has_failed else 0)
        )


def _result(answer: Answer, token: int, *, more: bool) -> bytes:
    status = wire.MORE if more else 0
    match answer:
        case Count(None):
            return wire.done(token, status, 0, wire.UPDATE)
        case Count(rows):
            return wire.done(token, status | wire.COUNTED, rows or 0, wire.UPDATE)
        case Error(number, message):
            return wire.error(number, message) + wire.done(token, status | wire.FAILED)
        case Rows(columns, rows):
            return wire.rows(columns, rows) + wire.done(token, status | wire.COUNTED, len(rows))
