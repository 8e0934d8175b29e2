"""SQL scripts: the table that the service needs, per database, and a few robots for a trial.

All of them may run again and again.
"""

from importlib.resources import files


def script(name: str) -> str:
    """Return a script.

    Args:
        name: ``sqlite`` or ``sqlserver`` (the table), ``sqlserver_login`` (the least rights), or
            ``robots`` (rows for either).

    Raises:
        FileNotFoundError: If there is none.
    """
    return files(__name__).joinpath(f"{name}.sql").read_text(encoding="utf-8")
