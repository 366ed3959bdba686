"""Print ``export`` lines that make uv see what pip's configuration says (uv does not read it)."""

from __future__ import annotations

import shlex
import subprocess
import sys

TRANSLATED = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "constraint": "UV_CONSTRAINT",
    "cert": "SSL_CERT_FILE",
}


def main() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    settings: dict[str, str] = {}
    for line in listed.splitlines():
        name, _, value = line.partition("=")
        settings[name.rsplit(".", 1)[-1]] = value.strip("'\"").replace("\\n", " ").strip()
    for option, variable in TRANSLATED.items():
        if settings.get(option):
            print(f"export {variable}={shlex.quote(settings[option])}")
    if settings.get("extra-index-url"):
        # pip takes the best version of any index; so must uv.
        print("export UV_INDEX_STRATEGY=unsafe-best-match")


if __name__ == "__main__":
    main()
