"""docs/how-to/trial.md: each command of it is run, in its order, and does what the page says."""

import json
import ssl
from datetime import datetime
from pathlib import Path
from typing import Final

import httpx
import pytest

from tests.support import markdown
from tests.support.conditions import eventually
from tests.support.databases import free_port
from tests.support.reader import Reader
from tests.support.service import PATIENT

pytestmark = [pytest.mark.posix, pytest.mark.server]

PAGE: Final = markdown.ROOT.joinpath("docs/how-to/trial.md").read_text(encoding="utf-8")


def answers(url: str, authority: Path) -> bool:
    """Whether the service answers through the proxy."""
    try:
        tls = ssl.create_default_context(cafile=authority)
        return httpx.get(f"{url}/health", verify=tls).status_code == 200
    except httpx.TransportError:
        return False


def test_a_callback_comes_into_sams_table_through_the_proxy(tmp_path: Path) -> None:
    tmp_path.joinpath("docs").symlink_to(markdown.ROOT / "docs")
    port = free_port()
    in_front = f"127.0.0.1:{free_port()}"
    table, settings, configure, serve, proxy, callback, look = (
        command.replace("127.0.0.1:8000", f"127.0.0.1:{port}").replace("127.0.0.1:8443", in_front)
        for command in markdown.commands("docs/how-to/trial.md")
    )
    reader = Reader(tmp_path, port, **PATIENT)
    reader.types(table)
    checked = reader.types(settings).splitlines()
    [warning] = [line for line in checked if not line.startswith("ok ")]
    assert warning.startswith("warning column Estado: ")
    assert "Configuration file is valid" in reader.types(configure)
    with reader.begins(serve), reader.begins(proxy):
        eventually(lambda: answers(f"https://{in_front}", tmp_path / "var/authority.pem"))
        answer = json.loads(reader.types(callback))
    [shown] = [json.loads(code) for language, code in markdown.blocks(PAGE) if language == "json"]
    assert answer == {**shown, "requestId": answer["requestId"]}
    _, _, status, payload, received = reader.types(look).splitlines()
    assert status == "RUN_COMPLETED"
    assert json.loads(payload)["status"] == status
    datetime.fromisoformat(received)
