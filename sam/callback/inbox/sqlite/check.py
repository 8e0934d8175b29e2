"""Spool check, beside a running service or without one."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from sam.callback.check_result import CheckResult, Level
from sam.callback.inbox.sqlite.file import SpoolFile
from sam.callback.inbox.sqlite.file_system import kind_of, risk_of
from sam.callback.inbox.sqlite.ownership import OwnedByAnotherError, Ownership
from sam.callback.inbox.sqlite.schema import (
    OlderSpoolError,
    SpoolVersionError,
    check_that_it_is_a_spool,
)
from sam.callback.settings import SpoolSettings

_SUBJECT = "spool"


def check_spool(settings: SpoolSettings) -> list[CheckResult]:
    """Check that the spool can be written, and is on a real disk.

    A missing file is not made: it would belong to the user of this command, who may not be that of
    the service.
    """
    path = settings.callback_spool_path
    results = [_is_writable(path, settings.callback_spool_max_bytes)]
    if risk := risk_of(path):
        results.append(
            CheckResult("spool's disk", Level.WRONG, f"{path} is on {risk.kind}.", risk.action)
        )
    else:
        results.append(CheckResult("spool's disk", Level.OK, kind_of(path) or "a local disk"))
    return results


def _is_writable(path: Path, max_bytes: int) -> CheckResult:
    try:
        if not path.exists():
            return _can_be_made(path)
        check_that_it_is_a_spool(path)
        with closing(SpoolFile(path, max_bytes, may_migrate=False)) as file:
            file.try_room()
            entries = sum(total.entries for total in file.totals().values())
            is_private = file.is_private
    except OlderSpoolError as error:
        return CheckResult(_SUBJECT, Level.OK, str(error))
    except SpoolVersionError as error:
        return CheckResult(_SUBJECT, Level.WRONG, str(error))
    except (OSError, sqlite3.Error) as error:
        return CheckResult(
            _SUBJECT,
            Level.WRONG,
            f"{path} cannot be written: {error}.",
            "Let the service's user write it, make room, or set CALLBACK_SPOOL_PATH.",
        )
    number = "1 entry" if entries == 1 else f"{entries} entries"
    beside = ", a service that runs has it" if _is_owned(path) else ""
    if not is_private:
        return CheckResult(
            _SUBJECT,
            Level.WARNING,
            f"{path}, {number}{beside}; others than its owner may read or write it.",
            f"Let the service's user own it, or: chmod 600 {path}*",
        )
    return CheckResult(_SUBJECT, Level.OK, f"{path}, {number}{beside}")


def _can_be_made(path: Path) -> CheckResult:
    directory = path.parent
    while not directory.exists():
        directory = directory.parent
    with tempfile.TemporaryFile(dir=directory):
        return CheckResult(_SUBJECT, Level.OK, f"{path}, not there yet, can be made")


def _is_owned(path: Path) -> bool:
    if not Path(f"{path}.lock").exists():
        return False
    ownership = Ownership(path)
    try:
        ownership.hold()
    except (OwnedByAnotherError, OSError):
        return True
    ownership.release()
    return False
