"""Portability to Windows, as far as it can be seen elsewhere.

Attributes that Windows lacks, such as `os.geteuid`, are what `make lint` looks for, with mypy for
that platform.
"""

import subprocess
import sys

from tests.support.markdown import ROOT

IMPORT_ALL_AS_ON_WINDOWS = """
import builtins, importlib, pkgutil

POSIX_ONLY = {
    "crypt", "curses", "fcntl", "grp", "nis", "posix", "pty", "pwd", "readline", "resource", "spwd",
    "syslog", "termios", "tty", "uvloop",
}
import_ = builtins.__import__

def import_as_on_windows(name, globals=None, *rest, **more):
    importer = (globals or {}).get("__name__", "")
    if importer.startswith("sam.") and name.partition(".")[0] in POSIX_ONLY:
        raise ModuleNotFoundError(f"{importer} imports {name}, which Windows has not")
    return import_(name, globals, *rest, **more)

builtins.__import__ = import_as_on_windows
import sam.callback
for module in pkgutil.walk_packages(sam.callback.__path__, "sam.callback."):
    importlib.import_module(module.name)
    print(module.name)
"""


def test_every_module_imports_without_the_modules_that_windows_has_not() -> None:
    run = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL_AS_ON_WINDOWS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.stderr == ""
    imported = set(run.stdout.split())
    assert {"sam.callback.cli.serve", "sam.callback.service.main"} <= imported
    assert len(imported) > 50
