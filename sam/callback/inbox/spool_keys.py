"""The keys of the spool's entries, computed anew where the rule has changed."""

import sqlite3
from collections.abc import Callable
from typing import Final

_STATEMENTS: Final = (
    # Of entries that become one, the one with the highest number stays.
    """
    DELETE FROM entries WHERE number IN (
        SELECT number FROM (
            SELECT number, row_number() OVER (
                PARTITION BY key_of(coalesce(deployment_id, key)) ORDER BY number DESC
            ) AS place
            FROM entries WHERE key IS NOT NULL
        )
        WHERE place > 1
    )
    """,
    # Keys may change places, and each is unique: so for a moment none has any.
    """
    UPDATE entries SET deployment_id = coalesce(deployment_id, key), key = NULL
    WHERE key IS NOT NULL AND key_of(coalesce(deployment_id, key)) <> key
    """,
    """
    UPDATE entries SET
        key = key_of(deployment_id), deployment_id = nullif(deployment_id, key_of(deployment_id))
    WHERE key IS NULL AND deployment_id IS NOT NULL
    """,
)
_CHANGES: Final = """
SELECT 1 FROM entries WHERE key IS NOT NULL AND key_of(coalesce(deployment_id, key)) <> key LIMIT 1
"""


def rekey(connection: sqlite3.Connection, key_of: Callable[[str], str]) -> None:
    """Give every entry the key of its deployment's id, within a transaction.

    Args:
        connection: On the file.
        key_of: The rule: what the database takes an id for.

    Raises:
        sqlite3.Error: If that fails.
    """
    connection.create_function("key_of", 1, key_of, deterministic=True)
    if connection.execute(_CHANGES).fetchone() is not None:  # looked at first: that is fast
        for statement in _STATEMENTS:
            connection.execute(statement)
