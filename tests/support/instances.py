"""One of several instances on a shared inbox, with a folder of its own."""

import contextlib
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from tests.support.callbacks import body
from tests.support.conditions import eventually
from tests.support.load import spooled
from tests.support.networks import Network
from tests.support.service import KEY, Service


class Instance:
    """An instance.

    Args:
        directory: Its folder; PostgreSQL knows its connections by the name of that.
        sam: The connection string of SAM's database.
        inbox: That of the shared inbox.
        network: Where it is, if it has a network of its own.
        settings: More of them.
    """

    def __init__(
        self,
        directory: Path,
        sam: str,
        inbox: str,
        *,
        network: Network | None = None,
        **settings: str,
    ) -> None:
        self.directory = directory
        self._network = network
        self._environment = {
            "CALLBACK_API_KEY": KEY,
            "SQL_SAM_CONNECTION_STRING": sam,
            "CALLBACK_INBOX_CONNECTION_STRING": inbox,
            "CALLBACK_DB_TIMEOUT": "5",
            "PGAPPNAME": directory.name,
            **settings,
        }
        self.start()

    def start(self) -> None:
        """Start it, anew or again."""
        self.directory.mkdir(exist_ok=True)
        with self._beside():
            self.service = Service(self.directory, self._environment, fresh=True)
        self.service.wait_for_event("inbox_available")

    def send(self, deployment_id: str, status: str) -> str:
        """Send a callback; return its outcome."""
        with self._beside():
            answer = self.service.post(body(deployment_id, status))
        assert answer.status_code == 200, answer.text
        outcome: str = answer.json()["outcome"]
        return outcome

    def spooled(self) -> dict[str, tuple[str, str]]:
        """What its spool holds."""
        return spooled(self.directory / "var/callback-spool.db")

    def wait_until_inbox_is_back(self) -> None:
        """Wait until the inbox answers again, after it did not."""

        def is_back() -> bool:
            events = [line["event"] for line in self.service.lines]
            events.reverse()
            return events.index("inbox_available") < events.index("inbox_unavailable")

        eventually(is_back)

    def lose(self) -> None:
        """Kill it, and delete its folder."""
        self.service.kill()
        shutil.rmtree(self.directory)

    def _beside(self) -> AbstractContextManager[None]:
        return self._network.inside() if self._network else contextlib.nullcontext()
