"""Embedded database: SQLite over ODBC, for a trial of the service on one machine."""

import os
import sqlite3
import uuid
from contextlib import closing
from pathlib import Path
from typing import Final

from sam.callback.cli.output import refuse
from sam.callback.settings import ClientSettings, Settings

DATABASE: Final = Path("var/sam.db")
KEY: Final = "local-demo-key"
HOST: Final = "127.0.0.1"
SIMULATED_ROBOTS: Final = 1_000
_SIMULATED: Final = uuid.UUID("5d3c1b0e-53e8-4b6c-9d0a-6c1f6e0f8a11")


def prepare() -> None:
    """Make the database if it is missing, and set the variables that the service needs for it.

    Raises:
        DriverNotFoundError: If this machine has no ODBC driver for SQLite.
        SettingsError: If a variable is wrong.
    """
    from sam.callback.storage.odbc.drivers import find_sqlite_driver  # noqa: PLC0415 - see serve
    from sam.callback.storage.schema import script  # noqa: PLC0415

    driver = find_sqlite_driver()
    DATABASE.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        connection.executescript(script("sqlite"))
        connection.executescript(script("robots"))
    os.environ["SQL_SAM_CONNECTION_STRING"] = (
        # The driver's own defaults are synchronous=NORMAL, which may lose the last commits with
        # the power, and 100 s of waiting for another's lock ("Timeout", in ms).
        f"DRIVER={{{driver.name}}};Database={DATABASE.absolute()};"
        "SyncPragma=FULL;JournalMode=WAL;Timeout=1000;"
    )
    given = ClientSettings.load()
    if given.callback_api_key is None:
        os.environ["CALLBACK_API_KEY"] = KEY
    if given.callback_host is None:
        os.environ["CALLBACK_HOST"] = HOST


def robots(directory: Path = Path()) -> list[tuple[str, str, str]]:
    """Return each robot's name, deployment and status, of the database below a directory."""
    with closing(sqlite3.connect(directory / DATABASE)) as connection:
        return connection.execute(
            "SELECT name, deploymentId, status FROM robots ORDER BY id"
        ).fetchall()


def first_deployment() -> str:
    """Return the deployment of the first robot; end with exit status 2 if there is no database."""
    _require_database()
    return robots()[0][1]


def add_robots() -> list[str]:
    """Add robots for a simulation, if they are not there; return their deployments.

    A360 calls once per deployment. Many callbacks for a handful of robots would only wait for one
    another.
    """
    _require_database()
    simulated = [
        (f"Simulated {number}", str(uuid.uuid5(_SIMULATED, str(number))))
        for number in range(1, SIMULATED_ROBOTS + 1)
    ]
    with closing(sqlite3.connect(DATABASE)) as connection, connection:
        connection.executemany(
            "INSERT OR IGNORE INTO robots (name, deploymentId) VALUES (?, ?)", simulated
        )
    return [deployment_id for _, deployment_id in simulated]


def _require_database() -> None:
    if not DATABASE.is_file():
        refuse(
            f"There is no {DATABASE} here: begin with `make run`, and say --embedded in the same "
            "directory."
        )


def how_to_try(settings: Settings) -> str:
    """Return the line that posts a callback as A360 would, for a person to copy."""
    _, deployment_id, _ = robots()[0]
    is_demo_key = settings.callback_api_key.get_secret_value() == KEY
    return (
        "Serving on the embedded database "
        f"{DATABASE}. Try:\n\n"
        f"  curl -X POST http://127.0.0.1:{settings.callback_port}/callback \\\n"
        f"    -H 'X-API-KEY: {KEY if is_demo_key else '<your CALLBACK_API_KEY>'}' \\\n"
        "    -H 'Content-Type: application/json' \\\n"
        f'    -d \'{{"deploymentId": "{deployment_id}", "status": "RUN_COMPLETED"}}\'\n'
    )
