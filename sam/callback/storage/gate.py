"""Who decides: the thread that is about to COMMIT, or the time-out that gives it up."""

import threading


class AbandonedError(Exception):
    """The time-out came first: this thread may not commit any more."""


class Gate:
    """Shut by the time-out, passed by a thread before each COMMIT.

    A thread that waits in an ODBC driver cannot be stopped; it may come back long after its
    callback was given up and a newer status was committed. It then finds the gate shut. What had
    passed before may still be committed: of that, the time-out knows nothing.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_shut = False

    def enter(self) -> None:
        """Pass, on the connection's thread, to COMMIT.

        Raises:
            AbandonedError: If the gate is shut.
        """
        with self._lock:
            if self._is_shut:
                raise AbandonedError

    def check(self) -> None:
        """Stop here, on the connection's thread, if the gate is shut: no COMMIT will come of it.

        Raises:
            AbandonedError: If it is.
        """
        if self._is_shut:
            raise AbandonedError

    def shut(self) -> None:
        """Let no further COMMIT begin."""
        with self._lock:
            self._is_shut = True
