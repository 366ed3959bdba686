"""Say where to look after the demo."""

from __future__ import annotations

import sys
from pathlib import Path

from noriba.home import Home

home = Home(Path(sys.argv[1]))
server = home.server()
assert server is not None, "the demo's server is gone"
folder = home.path
print(
    f"""
The server is still running at {server.base_url}. Try:

  export NORIBA_HOME={folder}
  source .venv/bin/activate
  noriba job list                                             all jobs
  noriba job create --file examples/hello/job.yml --stream    submit another one
  eval "$(noriba env)" && python                              use azure-ai-ml and mlflow from here
  noriba logs                                                 what the server did
  make demo-stop                                              stop it
"""
)
