"""Bodies of callbacks: from a file, or made up as A360 might send them."""

import itertools
import json
import random
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sam.callback.cli.refusal import refuse

# The weights are a guess of an ordinary day's; the statuses are all that have been seen.
_STATUSES: Final = {
    "RUN_COMPLETED": 80,
    "RUN_FAILED": 10,
    "RUN_ABORTED": 3,
    "RUN_TIMED_OUT": 3,
    "DEPLOY_FAILED": 2,
    "COMPLETED": 1,
    "UNKNOWN": 1,
}
# Bytes of text in botOutput: mostly a line, now and then a report; None is no botOutput at all.
_OUTPUT_SIZES: Final[dict[int | None, int]] = {None: 20, 0: 20, 60: 50, 2_000: 9, 64_000: 1}


def made_up(deployments: Sequence[str] | None, seed: int) -> Iterator[bytes]:
    """Yield bodies without end, for each deployment in turn, or for ever new ones."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    statuses, status_weights = list(_STATUSES), list(_STATUSES.values())
    sizes, size_weights = list(_OUTPUT_SIZES), list(_OUTPUT_SIZES.values())
    for deployment_id in itertools.cycle(deployments) if deployments else _new_ones(chance):
        body: dict[str, Any] = {
            "userId": str(chance.randrange(1, 5_000)),
            "deviceId": str(chance.randrange(1, 100)),
            "deploymentId": deployment_id,
            "status": chance.choices(statuses, status_weights)[0],
        }
        [size] = chance.choices(sizes, size_weights)
        if size is not None:
            text = {"type": "STRING", "string": "Simulated. " * (size // 11)}
            body["botOutput"] = {"oResult": text} if size else {}
        yield json.dumps(body).encode()


def from_file(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file that `lines_in` has checked, again and again."""
    while True:
        with path.open("rb") as file:
            yield from filter(None, map(bytes.strip, file))


def lines_in(path: Path) -> int:
    """Return how many bodies a file of JSON lines has; end with exit status 2 if it is none."""
    bodies = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    try:
                        json.loads(line)
                    except ValueError as error:
                        refuse(
                            f"--bodies {path}: line {number} is not JSON ({error}).\n"
                            "Each line should be one whole body, as A360 sends it."
                        )
                    bodies += 1
    except OSError as error:
        refuse(f"--bodies {path} cannot be read: {error.strerror}.")
    return bodies or refuse(f"--bodies {path} is empty.")


def deployments_in(path: Path) -> list[str]:
    """Return the deployments in a file, one a line; end with exit status 2 if there is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        refuse(f"--deployments {path} cannot be read: {error}.")
    return [line.strip() for line in lines if line.strip()] or refuse(
        f"--deployments {path} is empty."
    )


def _new_ones(chance: random.Random) -> Iterator[str]:
    while True:
        yield str(uuid.UUID(int=chance.getrandbits(128), version=4))
