"""Small parts at the edges: HTTP answers, GPUs as the driver tells them, container command lines."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from noriba.agent import container, gpus
from noriba.agent.protocol import TaskInput
from noriba.agent.variables import inherited
from noriba.agent.wire import Wire, WireError


@pytest.fixture
def answering() -> Any:
    """A peer that reads one request and sends given bytes, in pieces."""
    doors = []

    def serve(*pieces: bytes) -> Wire:
        door = socket.create_server(("127.0.0.1", 0))
        doors.append(door)

        def run() -> None:
            peer, _ = door.accept()
            with peer:
                peer.recv(65536)
                for piece in pieces:
                    peer.sendall(piece)

        threading.Thread(target=run, daemon=True).start()
        return Wire("127.0.0.1", door.getsockname()[1], None, 5.0)

    yield serve
    for door in doors:
        door.close()


@pytest.mark.parametrize(
    ("pieces", "status", "body"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"], 200, b"hello"),
        ([b"HTTP/1.1 200 OK\r\ncontent-len", b"gth: 5\r\n\r\nhe", b"llo"], 200, b"hello"),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"], 204, b""),
        (
            [
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhel",
                b"lo\r\n1\r\n!\r\n0\r\n",
                b"T: 1\r\n\r\n",
            ],
            200,
            b"hello!",
        ),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno"], 503, b"no"),
    ],
)
def test_answers(answering: Callable[..., Wire], pieces: list[bytes], status: int, body: bytes) -> None:
    wire = answering(*pieces)
    answer = wire.call(b"GET / HTTP/1.1\r\n\r\n", b"", 5.0)
    assert (answer.status, answer.body) == (status, body)
    assert wire.is_open == (status != 503)
    wire.close()


@pytest.mark.parametrize(
    "pieces",
    [
        [b""],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello"],
        [b"SSH-2.0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\n"],
    ],
)
def test_answers_that_are_none(answering: Callable[..., Wire], pieces: list[bytes]) -> None:
    with pytest.raises(WireError):
        answering(*pieces).call(b"GET / HTTP/1.1\r\n\r\n", b"", 5.0)


def test_gpus_as_the_driver_tells_them(tmp_path: Path) -> None:
    assert gpus.models(tmp_path) == []
    for bus, minor, model in (("0000:01:00.0", 1, "NVIDIA A100"), ("0000:02:00.0", 0, "NVIDIA H100")):
        (tmp_path / bus).mkdir()
        (tmp_path / bus / "information").write_text(
            f"Model: \t\t {model}\nIRQ: 1\nDevice Minor: \t {minor}\n"
        )
    assert gpus.models(tmp_path) == ["NVIDIA H100", "NVIDIA A100"]
    assert gpus.Gpus.open([]) is None


def test_gpus_of_the_node_are_all_that_a_task_sees(make_node: Any) -> None:
    node = make_node().start("--gpus", "1,3")
    node.run("echo [$CUDA_VISIBLE_DEVICES]")
    assert node.control_plane.log("job-1.0") == b"[1,3]\n"


def test_a_container_line_hides_secrets_and_shows_folders(tmp_path: Path) -> None:
    box = container.Container(
        runtime="podman", image="python:3.11", name=container.container_name("n/1", "job.0", "ray head")
    )
    line = container.command_line(
        box, ["bash", "-c", "echo hi"], working_folder=Path("/w/code"), writable=[Path("/w/code")],
        readable=[Path("/w/inputs/d")], environment={"TOKEN": "secret", "MULTI": "a\nb"},
        environment_file=tmp_path / "env", shm_size_bytes=1024, memory_bytes=2048, cpus=2.0, gpus=["0"],
        extra=["--ipc=host"],
    )  # fmt: skip
    assert "secret" not in " ".join(line)
    assert (tmp_path / "env").read_text() == "TOKEN=secret\n"
    assert (tmp_path / "env").stat().st_mode & 0o077 == 0
    assert line[-5:] == ["--entrypoint", "bash", "python:3.11", "-c", "echo hi"]
    assert line[line.index("--env") + 1] == "MULTI"
    assert "/w/inputs/d:/w/inputs/d:ro" in line
    assert "--ipc=host" in line
    assert box.name == "noriba-n-1-job.0-ray-head"
    assert container.removal(box)[-1] == box.name


def test_only_listed_variables_are_inherited() -> None:
    own = {"LC_ALL": "C", "https_proxy": "p", "DATABASE_PASSWORD": "x", "NCCL_DEBUG": "1", "MY_TEAM_X": "1"}
    assert inherited(own, ("MY_TEAM_*",)).keys() == {"LC_ALL", "https_proxy", "NCCL_DEBUG", "MY_TEAM_X"}


def test_inputs_of_a_group_get_their_own_folders(node: Any) -> None:
    node.blobs.put("d/f", "x")
    node.run(
        "cat ${{inputs.group.data}}/f",
        inputs={"group.data": TaskInput(type="uri_folder", source=node.location("d"))},
    )
    assert node.control_plane.log("job-1.0") == b"x"
