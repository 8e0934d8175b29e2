"""A PostgreSQL cluster: a primary and two standbys, one of which has each COMMIT before it ends."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import pyodbc

from sam.callback.inbox.sql.schema import DEFAULT_TABLE, script
from sam.callback.storage.odbc.dialects import POSTGRESQL
from tests.support.conditions import eventually
from tests.support.databases import UNUSED_PASSWORD, PostgresServer, free_port

_SYNCHRONOUS: Final = "ANY 1 (n0, n1, n2)"
DATABASE: Final = "inbox"
LOOPBACK: Final = ("127.0.1.1", "127.0.1.2", "127.0.1.3")


class Node(PostgresServer):
    """One server of a cluster.

    Args:
        name: Its name, by which its primary knows it.
        host: Its address: psqlODBC has room for no more than two ports, and this is that of all.
        port: The port.
        primary: The node that it follows; None for the first one.
        durable: Whether a COMMIT waits for its disk.
    """

    def __init__(
        self, name: str, host: str, port: int, primary: "Node | None" = None, *, durable: bool
    ) -> None:
        self.name = name
        self._primary = primary
        super().__init__(durable=durable, host=host, port=port)

    def _make_data(self) -> None:
        if self._primary is None:
            super()._make_data()
        else:
            self.follow(self._primary)

    def follow(self, primary: "Node") -> None:
        """Begin anew as a copy of another node."""
        shutil.rmtree(self.directory / "data", ignore_errors=True)
        subprocess.run(
            [
                self._binaries / "pg_basebackup",
                f"--pgdata={self.directory}/data",
                f"--dbname={self._follow(primary)}",
                *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
            ],
            user=self._user,
            check=True,
            stdin=subprocess.DEVNULL,
            cwd=self.directory,
        )

    def is_running(self) -> bool:
        """Whether its postmaster runs."""
        return (self.directory / "data/postmaster.pid").exists()

    def kill(self) -> None:
        """End it as a power cut would: the postmaster and all its children."""
        pid = int((self.directory / "data/postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in [pid, *map(int, children)]:
            with suppress(ProcessLookupError):
                os.kill(each, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{pid}").exists())
        (self.directory / "data/postmaster.pid").unlink(missing_ok=True)

    def follow_now(self, primary: "Node") -> None:
        """Take another node for the primary, as it is."""
        with closing(self.connect("postgres")) as connection:
            connection.execute(f"ALTER SYSTEM SET primary_conninfo = '{self._follow(primary)}'")
            connection.execute("SELECT pg_reload_conf()")

    def _follow(self, primary: "Node") -> str:
        where = f"host={primary.host} port={primary.port}"
        return f"{where} user=sam application_name={self.name}"

    def promote(self) -> None:
        """Make it the primary."""
        self._run("pg_ctl", "promote", "--wait")


class Cluster:
    """Three nodes, the first of which is the primary, with an inbox in a database of its own.

    Args:
        addresses: One for each.
        durable: Whether a COMMIT waits for the disks.
    """

    def __init__(self, addresses: Sequence[str] = LOOPBACK, *, durable: bool = False) -> None:
        port = free_port()
        self.primary = Node("n0", addresses[0], port, durable=durable)
        with closing(self.primary.connect("postgres")) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")
        with closing(self.primary.connect(DATABASE)) as connection:
            connection.execute(script("postgresql", DEFAULT_TABLE, POSTGRESQL.quote))
        # It is copied with the rest, and goes with whichever node is the primary.
        with closing(self.primary.connect("postgres")) as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{_SYNCHRONOUS}'")
        self.standbys = [
            Node(f"n{n}", addresses[n], port, self.primary, durable=durable) for n in (1, 2)
        ]
        with closing(self.primary.connect("postgres")) as connection:
            connection.execute("SELECT pg_reload_conf()")
        self.wait_for_standbys(2)
        self._nodes = [self.primary, *self.standbys]

    @property
    def connection_string(self) -> str:
        """All nodes: libpq takes the one that can be written to."""
        hosts = ",".join(node.host for node in self._nodes)
        return (
            f"DRIVER={{PostgreSQL Unicode}};Server={hosts};Port={self.primary.port};"
            f"Database={DATABASE};UID=sam;PWD={UNUSED_PASSWORD};"
            "pqopt={target_session_attrs=read-write};"
        )

    def execute(self, sql: str) -> list[tuple[object, ...]]:
        """Run a statement on the primary; return its rows."""
        with closing(self.primary.connect(DATABASE)) as connection:
            cursor = connection.execute(sql)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def entries(self) -> dict[str, tuple[str, str]]:
        """The kind and the status of each deployment that has an entry."""
        rows = self.execute(
            f"SELECT deployment_id, kind, status FROM {DEFAULT_TABLE} WHERE line <> 2"
            " AND deployment_id IS NOT NULL"
        )
        return {str(deployment): (str(kind), str(status)) for deployment, kind, status in rows}

    def wait_for_standbys(self, number: int) -> None:
        """Wait until so many standbys are synchronous."""

        def are_there() -> bool:
            with suppress(pyodbc.Error), closing(self.primary.connect("postgres")) as connection:
                [count] = connection.execute(
                    "SELECT count(*) FROM pg_stat_replication"
                    " WHERE state = 'streaming' AND sync_state = 'quorum'"
                ).fetchone()
                return int(count) >= number
            return False

        eventually(are_there)

    def fail_over(self) -> None:
        """Kill the primary, promote the standby that has more, and let the other one follow."""
        if self.primary.is_running():
            self.primary.kill()

        def received(node: Node) -> int:
            with closing(node.connect("postgres")) as connection:
                [lsn] = connection.execute(
                    "SELECT pg_wal_lsn_diff(pg_last_wal_receive_lsn(), '0/0')"
                ).fetchone()
            return int(lsn)

        best, *others = sorted(self.standbys, key=received, reverse=True)
        best.promote()
        for other in others:
            other.follow_now(best)
        self.primary, self.standbys = best, others
        self.wait_for_standbys(len(others))

    def destroy(self) -> None:
        for node in self._nodes:
            with suppress(subprocess.CalledProcessError):
                node.stop("immediate")
            shutil.rmtree(node.directory)
