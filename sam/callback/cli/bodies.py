"""Callback bodies: read from a file, or made up as A360 writes them."""

import itertools
import json
import random
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from sam.callback.cli.output import refuse
from sam.callback.model import KNOWN_STATUSES

# Of KNOWN_STATUSES, a guess of an ordinary day's.
_STATUS_WEIGHTS: Final = (1, 80, 10, 3, 3, 2, 1)
# Bytes of text in botOutput: mostly a line, now and then a report; None is no botOutput at all.
_OUTPUT_SIZES: Final[dict[int | None, int]] = {None: 20, 0: 20, 60: 50, 2_000: 9, 64_000: 1}


def made_up(deployments: Sequence[str] | None, seed: int) -> Iterator[bytes]:
    """Yield bodies without end, for each deployment in turn, or always for a new one."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    new = (str(uuid.UUID(int=chance.getrandbits(128), version=4)) for _ in itertools.count())
    for deployment_id in itertools.cycle(deployments) if deployments else new:
        [status] = chance.choices(KNOWN_STATUSES, _STATUS_WEIGHTS)
        [size] = chance.choices(list(_OUTPUT_SIZES), list(_OUTPUT_SIZES.values()))
        body: dict[str, Any] = {
            "userId": str(chance.randrange(1, 5_000)),
            "deviceId": str(chance.randrange(1, 100)),
            "deploymentId": deployment_id,
            "status": status,
        }
        if size is not None:
            text = {"type": "STRING", "string": "Simulated. " * (size // 11)}
            body["botOutput"] = {"oResult": text} if size else {}
        yield json.dumps(body).encode()


def bodies_in(path: Path) -> list[bytes]:
    """Return the bodies in a file, one a line; end with exit status 2 if it holds anything else."""
    lines = _lines("--bodies", path)
    for number, line in lines:
        try:
            json.loads(line)
        except ValueError as error:
            refuse(
                f"--bodies {path}: line {number} is not JSON ({error}).\n"
                "Each line should be one whole body, as A360 sends it."
            )
    return [line for _, line in lines]


def deployments_in(path: Path) -> list[str]:
    """Return the deployments in a file, one a line; end with exit status 2 if there is none."""
    try:
        return [line.decode("utf-8-sig") for _, line in _lines("--deployments", path)]
    except UnicodeDecodeError:
        refuse(f"--deployments {path} is not in UTF-8.")


def _lines(option: str, path: Path) -> list[tuple[int, bytes]]:
    """Return the lines that are not empty, with their numbers."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        refuse(f"{option} {path} cannot be read: {error.strerror}.")
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1) if line.strip()]
    return numbered or refuse(f"{option} {path} is empty.")
