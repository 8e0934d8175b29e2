"""The table that the service needs, one script per database. All may run again and again."""

from importlib.resources import files


def script(database: str) -> str:
    """Return the script for a database: ``sqlite`` or ``sqlserver``.

    Raises:
        FileNotFoundError: If there is none.
    """
    return files(__name__).joinpath(f"{database}.sql").read_text(encoding="utf-8")
