"""How long the command line takes: ``noriba up`` to ready, and the processor time of the quick verbs.

    .venv/bin/python benchmarks/startup.py [--rounds 5]

Each figure is of whole processes as a user starts them, in a home of its own. Targets: ready in less than 3 s,
``job list``, ``show`` and ``stream`` with less than 0.3 s of processor time.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NORIBA = [sys.executable, "-m", "noriba.cli.main"]
JOB = """\
command: echo done
environment:
  image: python:3.11
"""


def run(*arguments: str) -> tuple[float, float]:
    """Wall and processor seconds of one call, its children included."""
    before, begun = os.times(), time.perf_counter()
    done = subprocess.run([*NORIBA, *arguments], capture_output=True, text=True, check=False)
    wall_s, after = time.perf_counter() - begun, os.times()
    if done.returncode != 0:
        raise SystemExit(f"noriba {' '.join(arguments)} failed: {done.stderr}")
    cpu_s = after.children_user + after.children_system - before.children_user - before.children_system
    return wall_s, cpu_s


def show(what: str, figures_s: list[float], target_s: float) -> None:
    median = statistics.median(figures_s)
    print(
        f"{what:42} {median:6.2f} s  ({min(figures_s):.2f}-{max(figures_s):.2f})  "
        f"target {target_s:g} s  ratio {median / target_s:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    folder = Path(tempfile.mkdtemp(prefix="noriba-startup-"))
    home = str(folder / "home")
    try:
        fresh, again = [], []
        for _ in range(rounds):
            shutil.rmtree(home, ignore_errors=True)
            fresh.append(run("up", "--detach", "--home", home, "--port", "0")[0])
            run("down", "--home", home)
            again.append(run("up", "--detach", "--home", home, "--port", "0")[0])
            run("down", "--home", home)
        show("up --detach, new home, to ready (wall)", fresh, 3)
        show("up --detach, known home, to ready (wall)", again, 3)

        (folder / "job.yml").write_text(JOB)
        run("up", "--detach", "--home", home, "--port", "0")
        run("job", "create", "--file", str(folder / "job.yml"), "--name", "one", "--stream", "--home", home)
        for verb, arguments in {
            "job list": ["job", "list"],
            "job show": ["job", "show", "-n", "one"],
            "job stream, of a job that is over": ["job", "stream", "-n", "one"],
        }.items():
            show(f"{verb} (processor)", [run(*arguments, "--home", home)[1] for _ in range(rounds)], 0.3)
    finally:
        subprocess.run([*NORIBA, "down", "--all", "--home", home], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
