"""Schemathesis: all that /openapi.json promises holds, with the key and without."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.fuzz import amounts
from tests.support.service import KEY, Service, clean_environment

pytestmark = [pytest.mark.fuzz, pytest.mark.timeout(0)]  # as long as `make fuzz` is asked to

# From its environment: arguments are public.
WITH_THE_KEY: Final = '[headers]\nX-API-KEY = "${FUZZ_KEY}"\n'

# It wants 405 for `TRACE /health`. Without the key that is 401, as all that is not public.
EXCEPT_THE_METHODS: Final = ["--exclude-checks", "unsupported_method"]


@pytest.mark.parametrize(
    ("configuration", "options"),
    [(WITH_THE_KEY, []), ("", EXCEPT_THE_METHODS)],
    ids=["with the key", "without a key"],
)
def test_schemathesis_finds_nothing(
    configuration: str,
    options: list[str],
    target: Service,
    tmp_path: Path,
    count: Callable[[Counter[str]], None],
) -> None:
    (tmp_path / "schemathesis.toml").write_text(configuration)
    run = subprocess.run(
        [
            *(Path(sys.executable).parent / "schemathesis", "run", f"{target.url}/openapi.json"),
            *("--checks", "all", *options, "--max-examples", str(amounts.EXAMPLES)),
            *("--seed", str(int.from_bytes(amounts.SEED.encode()[:4])), "--no-color"),
            *("--warnings", "off"),  # without a key it would like to have one
        ],
        cwd=tmp_path,
        env=clean_environment(FUZZ_KEY=KEY),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    [cases] = re.findall(r"^\s+(\d+) generated, \d+ passed", run.stdout, re.MULTILINE)
    count(Counter({"by schemathesis": int(cases)}))
    answers = Counter(
        line["http_status"] for line in target.lines if line["event"] in {"callback", "refused"}
    )
    assert (200 in answers) == bool(configuration)
