"""Starting and stopping: up, down, status, logs."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from noriba.client.connection import Connection
from noriba.home import Home
from noriba.settings import DEFAULT_PORT
from tests.cli.conftest import clean_environment, result, run_noriba


@contextmanager
def taken_port(port: int = 0) -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        yield listener.getsockname()[1]


def test_detach_starts_a_ready_server_and_down_stops_it(home: Path) -> None:
    started = time.monotonic()
    up = run_noriba("up", "--detach", "--port", "0", "--home", str(home))
    print(f"up --detach took {time.monotonic() - started:.2f} s")
    assert up.returncode == 0, up.stderr
    info = Home(home).server()
    assert info is not None
    assert f"Made the home {home}" in up.stdout
    for told in (
        info.base_url,
        str(home),
        str(home / "logs" / "server.log"),
        f'eval "$(noriba env --home {home})"',
    ):
        assert told in up.stdout
    assert Connection(info.base_url, [home / "tls" / "ca.pem"]).request("GET", "/readyz").status == 200
    assert os.getsid(info.pid) == info.pid, "it must not end with the terminal it was started from"

    down = run_noriba("down", home=home)
    assert down.returncode == 0, down.stderr
    assert f"Stopped the server at {info.base_url}" in down.stdout
    assert Home(home).server() is None
    assert b'"stopped"' in (home / "logs" / "server.log").read_bytes(), "it must end in order"

    again = run_noriba("down", home=home)
    assert (again.returncode, again.stdout) == (0, f"No server runs in {home}\n")


def test_up_is_idempotent(home: Path) -> None:
    assert run_noriba("up", "--detach", "--port", "0", home=home).returncode == 0
    first = Home(home).server()
    for arguments in (("up",), ("up", "--detach"), ("up", "--detach", "--port", "0")):
        again = run_noriba(*arguments, home=home)
        assert again.returncode == 0, again.stderr
        assert first is not None
        assert f"runs already at {first.base_url}" in again.stdout
        assert ("change nothing" in again.stderr) == ("--port" in arguments)
    assert Home(home).server() == first


def test_two_starts_at_once_make_one_server(home: Path) -> None:
    command = [sys.executable, "-m", "noriba.cli.main", "up", "--detach", "--port", "0", "--home", str(home)]
    starts = [
        subprocess.Popen(
            command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    outputs = [start.communicate(timeout=120) for start in starts]
    assert [start.returncode for start in starts] == [0, 0], outputs
    info = Home(home).server()
    assert info is not None
    assert all(info.base_url in out for out, _ in outputs), outputs


def test_two_homes_at_once(tmp_path: Path) -> None:
    homes = [tmp_path / "one", tmp_path / "two"]
    try:
        for path in homes:
            assert run_noriba("up", "-d", "--port", "0", home=path).returncode == 0
        first, second = (result(run_noriba("status", "-o", "json", home=path)) for path in homes)
        assert first["ready"]
        assert second["ready"]
        assert first["port"] != second["port"]
        assert (homes[0] / "tls" / "ca.pem").read_bytes() != (homes[1] / "tls" / "ca.pem").read_bytes()
    finally:
        for path in homes:
            run_noriba("down", "--all", home=path)


def test_up_after_a_kill(home: Path) -> None:
    assert run_noriba("up", "-d", "--port", "0", home=home).returncode == 0
    killed = Home(home).server()
    assert killed is not None
    descriptor = os.pidfd_open(killed.pid)
    os.kill(killed.pid, signal.SIGKILL)
    os.close(descriptor)
    assert run_noriba("down", home=home).stdout == f"No server runs in {home}\n"
    port = killed.base_url.rpartition(":")[2]
    up = run_noriba("up", "-d", "--port", port, home=home)
    assert up.returncode == 0, up.stderr
    assert f"is ready at {killed.base_url}" in up.stdout
    assert "Made the home" not in up.stdout


def test_any_port_is_the_last_one_if_it_is_free(home: Path) -> None:
    """Nodes and shells that knew the server before find it again."""
    assert run_noriba("up", "-d", "--port", "0", home=home).returncode == 0
    first = Home(home).server()
    assert first is not None
    assert run_noriba("down", home=home).returncode == 0
    assert run_noriba("up", "-d", "--port", "0", home=home).returncode == 0
    second = Home(home).server()
    assert second is not None
    assert (second.base_url, second.pid == first.pid) == (first.base_url, False)
    assert run_noriba("down", home=home).returncode == 0
    with taken_port(int(first.base_url.rpartition(":")[2])):
        assert run_noriba("up", "-d", "--port", "0", home=home).returncode == 0
    third = Home(home).server()
    assert third is not None
    assert third.base_url != first.base_url


@pytest.mark.parametrize("detach", [True, False])
def test_a_busy_port(home: Path, detach: bool) -> None:
    with taken_port() as port:
        up = run_noriba("up", *(["-d"] if detach else []), "--port", str(port), home=home)
    assert up.returncode == 1
    assert up.stderr == (
        f"noriba: Can not listen on 127.0.0.1:{port}: Address already in use. "
        "Stop what uses it, or choose another with --port (0 takes a free one).\n"
    )


def test_the_busy_default_port_is_named(home: Path) -> None:
    try:
        with taken_port(DEFAULT_PORT):
            up = run_noriba("up", "-d", home=home)
    except OSError:
        up = run_noriba("up", "-d", home=home)
    assert up.returncode == 1
    assert f"127.0.0.1:{DEFAULT_PORT} (the default port): Address already in use." in up.stderr
    assert len(up.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "environ", "says"),
    [
        (["--set", "server.prt=1"], {}, "unknown field `prt` at `server`"),
        (["--set", "port=1"], {}, "--set takes section.name=value"),
        (["--sizing", "huge", "--detach"], {}, "'huge' at `engine.sizing`"),
        ([], {"NORIBA_SERVER_PORT": "many"}, "Bad setting in the environment (NORIBA_*): Expected `int`"),
        (["--database", "nonsense"], {}, "database.url can not be used"),
        (["--database", "nonsense", "--detach"], {}, "database.url can not be used"),
        (["--database", "sqlite:////nowhere/at/all.db", "--detach"], {}, "unable to open database file"),
        (["--host", "203.0.113.7"], {}, "Can not listen on 203.0.113.7:0: Cannot assign requested address."),
    ],
)
def test_bad_settings(home: Path, arguments: list[str], environ: dict[str, str], says: str) -> None:
    up = run_noriba("up", *arguments, home=home, **{"NORIBA_SERVER_PORT": "0", **environ})
    assert up.returncode == 1
    assert says in up.stderr
    assert len(up.stderr.splitlines()) == 1, up.stderr
    assert up.stdout == ""


def test_a_bad_settings_file(home: Path) -> None:
    home.mkdir()
    (home / "noriba.toml").write_text("[server\n")
    up = run_noriba("up", "-d", home=home)
    assert up.returncode == 1
    assert up.stderr.startswith(f"noriba: {home}/noriba.toml is not valid TOML")


def test_settings_by_flag_over_environment_over_file(home: Path) -> None:
    home.mkdir()
    (home / "noriba.toml").write_text(
        '[workspace]\nname = "file"\nresource_group = "file"\nlocation = "file"\n'
    )
    up = run_noriba(
        *("up", "-d", "--port", "0", "--set", "workspace.name=flag"),
        home=home,
        NORIBA_WORKSPACE_NAME="environment",
        NORIBA_WORKSPACE_RESOURCE_GROUP="environment",
    )
    assert up.returncode == 0, up.stderr
    workspace = result(run_noriba("status", "-o", "json", home=home))["workspace"]
    assert (workspace["workspace_name"], workspace["resource_group"]) == ("flag", "environment")


@pytest.mark.parametrize("detach", [True, False])
def test_a_home_that_is_a_file(tmp_path: Path, detach: bool) -> None:
    (tmp_path / "file").write_text("")
    up = run_noriba("up", *(["-d"] if detach else []), home=tmp_path / "file")
    assert up.returncode == 1
    assert up.stderr == (
        f"noriba: The home {tmp_path}/file can not be used: it is a file. "
        "Give a folder with --home or NORIBA_HOME.\n"
    )


def test_a_home_that_can_not_be_made() -> None:
    # Nobody, root included, makes folders in /proc.
    up = run_noriba("up", "-d", home=Path("/proc/noriba"))
    assert up.returncode == 1
    assert "The home /proc/noriba can not be used" in up.stderr
    assert "Give a folder that you may write to" in up.stderr
    assert len(up.stderr.splitlines()) == 1


def test_a_home_made_by_a_newer_version(home: Path) -> None:
    home.mkdir()
    newer = {"format": 99, "version": "9.9.9"}
    (home / "home.json").write_bytes(msgspec.json.encode(newer))
    up = run_noriba("up", "-d", "--port", "0", home=home)
    assert up.returncode == 1
    assert "was made by Noriba 9.9.9, which is newer than this one" in up.stderr
    assert len(up.stderr.splitlines()) == 1
    assert msgspec.json.decode((home / "home.json").read_bytes()) == newer


def test_status(home: Path) -> None:
    nothing = run_noriba("status", home=home)
    assert (nothing.returncode, nothing.stdout) == (1, f"No server runs in {home} (which is not made yet)\n")
    stopped = run_noriba("status", "-o", "json", home=home)
    assert stopped.returncode == 1
    assert msgspec.json.decode(stopped.stdout) == {"running": False, "home": str(home), "made": False}

    assert run_noriba("up", "-d", "--port", "0", home=home).returncode == 0
    info = Home(home).server()
    assert info is not None
    document = result(run_noriba("status", "-o", "json", home=home))
    assert document["pid"] == info.pid
    assert document["urls"]["api"] == info.base_url == f"https://{document['host']}:{document['port']}"
    assert document["home"] == str(home)
    assert document["log_file"] == str(home / "logs" / "server.log")
    assert document["version"] == info.version
    assert (document["engine"], document["sizing"]) == ("local", "emulate")
    assert document["isolation"] == info.isolation
    assert document["database"] == f"sqlite:///{home}/noriba.db"
    assert document["storage"] == str(home / "blobs")
    assert document["ready"] is True
    text = run_noriba("status", home=home).stdout
    for told in (info.base_url, str(info.pid), str(home), info.isolation, "noriba.db", "main"):
        assert told in text


def test_logs(home: Path) -> None:
    none = run_noriba("logs", home=home)
    assert none.returncode == 1
    assert "no server ran in the background here yet" in none.stderr
    assert run_noriba("up", "-d", "--port", "0", home=home).returncode == 0
    shown = run_noriba("logs", home=home)
    assert '"event": "ready"' in shown.stdout
    log = home / "logs" / "server.log"
    assert shown.stdout.encode() == log.read_bytes()
    with log.open("a") as file:
        file.writelines(f"line {index}\n" for index in range(100))
    last = run_noriba("logs", "-n", "3", home=home)
    assert last.stdout == "line 97\nline 98\nline 99\n"
    assert run_noriba("logs", "-n", "0", home=home).stdout == ""


def test_logs_follow(home: Path) -> None:
    assert run_noriba("up", "-d", "--port", "0", home=home).returncode == 0
    log = home / "logs" / "server.log"
    follower = subprocess.Popen(
        [sys.executable, "-m", "noriba.cli.main", "logs", "-f", "-n", "0", "--home", str(home)],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert follower.stdout is not None
    try:
        # Nothing says when it has begun to follow, so lines are added until one arrives.
        seen = b""
        with log.open("a", buffering=1) as file:
            for index in range(300):
                file.write(f"added {index}\n")
                if select.select([follower.stdout], [], [], 0.1)[0]:
                    seen = os.read(follower.stdout.fileno(), 4096)
                    break
        assert seen.startswith(b"added")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=30) == 0
    finally:
        follower.kill()
        follower.communicate()
