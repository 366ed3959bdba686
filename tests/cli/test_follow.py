"""Following a job, against a server that tells a prepared story: what is hard to make a real one do on demand."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from noriba.client.errors import ApiError, NoServer
from noriba.client.session import Session
from noriba.client.stream import PATIENCE_S, State, follow, followed
from noriba.client.target import Target

LOG = "user_logs/std_log.txt"


class Story:
    """What the server says: one entry of ``scenes`` per look at the job, the last one for ever.

    A scene is (status, {file: content}) with the content as it is at that moment.
    """

    def __init__(self, *scenes: tuple[str, dict[str, bytes]], ranges: bool = True, error: Any = None) -> None:
        self.scenes = scenes
        self.ranges = ranges
        self.error = error
        self.looks = 0
        self.requests: list[str] = []

    @property
    def scene(self) -> tuple[str, dict[str, bytes]]:
        return self.scenes[min(self.looks, len(self.scenes)) - 1]

    def start(self, port: int = 0) -> int:
        """Begin to answer; returns the port."""
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        return self._server.server_port

    def stop(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def told(self) -> Iterator[Session]:
        """A session with a server that tells the story."""
        target = Target(
            base_url=f"http://127.0.0.1:{self.start()}",
            secret="s",
            ca_files=[],
            subscription_id="sub",
            resource_group="group",
            workspace="ws",
        )
        session = Session(target)
        try:
            yield session
        finally:
            session.connection.close()
            self.stop()


def _handler(story: Story) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            story.requests.append(path)
            if path == "/msi/token":
                self._answer(200, json.dumps({"access_token": "t", "expires_on": "1"}).encode())
            elif path.endswith("/runs/none/details"):
                error = {"error": {"code": "ResourceNotFound", "message": "There is no job 'none'."}}
                self._answer(404, json.dumps(error).encode())
            elif path.endswith("/details"):
                story.looks += 1
                status, files = story.scene
                base = f"http://{self.headers['Host']}/log/"
                details = {
                    "status": status,
                    "logFiles": {name: f"{base}{name}?sig=x" for name in files},
                    "properties": {"noriba.reason": "because"} if status == "Queued" else {},
                    "error": story.error if status == "Failed" else None,
                    "warnings": [{"message": "mind the gap"}],
                }
                self._answer(200, json.dumps(details).encode())
            else:
                self._log(path.removeprefix("/log/"))

        def _log(self, name: str) -> None:
            assert "Authorization" not in self.headers
            content = story.scene[1].get(name)
            if content is None:
                self._answer(404, b"")
                return
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if not story.ranges:
                self._answer(200, content)
            elif start >= len(content):
                self._answer(416, b"")
            else:
                self._answer(206, content[start:])

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Not to the terminal."""

    return Handler


class Record:
    """Remembers what was reported."""

    def __init__(self) -> None:
        self.outputs: list[tuple[str, bytes]] = []
        self.states: list[State] = []
        self.absences = 0

    def state(self, state: State) -> None:
        self.states.append(state)

    def output(self, file: str, data: bytes) -> None:
        self.outputs.append((file, data))

    def away(self, error: NoServer) -> None:
        self.absences += 1

    def text(self, file: str = LOG) -> bytes:
        return b"".join(data for name, data in self.outputs if name == file)


def _follow(story: Story) -> tuple[State, Record]:
    record = Record()
    with story.told() as session:
        return follow(session, "j", record, sleep=lambda _: None), record


@pytest.mark.parametrize("ranges", [True, False])
def test_each_byte_once_and_in_order(ranges: bool) -> None:
    whole = b"first\nsecond \xff\xfe no newline yet" + b"x" * 100_000 + b"\nlast"
    cuts = [0, 6, 6, 13, 20, 60_000, len(whole) - 4, len(whole)]
    scenes = [("Running", {LOG: whole[:cut]}) for cut in cuts]
    state, record = _follow(Story(*scenes, ("Completed", {LOG: whole}), ranges=ranges))
    assert state.status == "Completed"
    assert record.text() == whole
    assert all(data for _, data in record.outputs)
    assert len(record.outputs) == len(set(cuts)) - 1, "what is there is reported at once"


def test_what_was_written_before_the_end_is_not_missed() -> None:
    _, record = _follow(Story(("Running", {LOG: b"a"}), ("Completed", {LOG: b"a and b"})))
    assert record.text() == b"a and b"


def test_a_job_that_is_over() -> None:
    _, record = _follow(Story(("Completed", {LOG: b"all of it"})))
    assert record.text() == b"all of it"
    assert len(record.states) == 1


def test_canceling_is_followed_to_its_end() -> None:
    state, record = _follow(
        Story(("CancelRequested", {LOG: b"a"}), ("NotResponding", {LOG: b"a"}), ("Canceled", {LOG: b"ab"}))
    )
    assert state.status == "Canceled"
    assert record.text() == b"ab"


def test_failure_says_why() -> None:
    error = {"error": {"code": "UserProcessFailed", "message": "exit code 3"}, "time": "t"}
    state, record = _follow(Story(("Queued", {}), ("Failed", {}), error=error))
    assert state.error == ("UserProcessFailed", "exit code 3")
    assert state.warnings == ("mind the gap",)
    assert record.states[0].reason == "because"


def test_a_log_that_is_listed_before_it_is_there() -> None:
    _, record = _follow(Story(("Running", {LOG: b""}), ("Completed", {LOG: b"x"})))
    assert record.text() == b"x"


def test_which_files_are_followed() -> None:
    names = [
        *("system_logs/x.txt", "user_logs/std_log.txt", "user_logs/std_log_process_0.txt", "logs/mine.txt"),
        *("user_logs/std_log_process_1.txt", "azureml-logs/20_image_build_log.txt", "azureml-logs/x.txt"),
    ]
    assert followed(dict.fromkeys(names, "")) == [
        "azureml-logs/20_image_build_log.txt",
        "user_logs/std_log.txt",
        "user_logs/std_log_process_0.txt",
    ]


def test_the_build_log_comes_first() -> None:
    build = "azureml-logs/20_image_build_log.txt"
    _, record = _follow(
        Story(
            ("Preparing", {build: b"b1"}),
            ("Running", {build: b"b1b2", LOG: b"u"}),
            ("Completed", {build: b"b1b2", LOG: b"u"}),
        )
    )
    assert record.outputs == [(build, b"b1"), (build, b"b2"), (LOG, b"u")]


def test_no_such_job() -> None:
    with Story(("Completed", {})).told() as session, pytest.raises(ApiError) as caught:
        follow(session, "none", Record())
    assert caught.value.status == 404
    assert str(caught.value) == "There is no job 'none'."


def test_a_server_that_is_restarted_is_waited_for() -> None:
    story = Story(("Running", {LOG: b"before "}), ("Completed", {LOG: b"before after"}))
    record = Record()
    with story.told() as session:
        port = urlsplit(session.connection.base_url).port
        assert port is not None
        sleeps = 0

        def sleep(_: float) -> None:
            nonlocal sleeps
            sleeps += 1
            if sleeps == 1:
                session.connection.close()
                story.stop()
            elif sleeps == 3:
                story.start(port)

        state = follow(session, "j", record, sleep=sleep)
    assert state.status == "Completed"
    assert record.text() == b"before after"
    assert record.absences == 2


def test_a_server_that_stays_away_is_given_up() -> None:
    with Story(("Running", {})).told() as session:
        pass
    now = [0.0]

    def sleep(duration_s: float) -> None:
        now[0] += duration_s

    record = Record()
    with pytest.raises(NoServer, match="No server answers at"):
        follow(session, "j", record, sleep=sleep, clock=lambda: now[0])
    assert PATIENCE_S - 2 < record.absences < PATIENCE_S + 2
