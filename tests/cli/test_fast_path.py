"""Quick commands stay quick: they import nothing heavy."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.cli.conftest import clean_environment
from tests.server import ServerProcess

HEAVY = (
    *("azure", "requests", "httpx", "urllib3", "mlflow", "rich", "cryptography", "sqlalchemy", "starlette"),
    *("uvicorn", "structlog", "psutil", "jwt", "obstore", "asyncio", "yaml", "xml", "concurrent.futures"),
)
RUN = """
import sys
from noriba.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print(*sorted(sys.modules), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["job", "list"],
        ["job", "list", "-o", "table"],
        ["job", "show", "-n", "none"],
        ["job", "stream", "-n", "none"],
        ["job", "cancel", "-n", "none"],
        ["data", "list"],
    ],
    ids=" ".join,
)
def test_imports(server: ServerProcess, arguments: list[str]) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments, "--home", str(server.home.path)],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{' '.join(arguments)}: {cpu_s * 1000:.0f} ms of CPU")
    modules = set(done.stderr.splitlines()[-1].split())
    assert "noriba.cli.main" in modules, done.stderr
    assert not [name for name in HEAVY if name in modules]
