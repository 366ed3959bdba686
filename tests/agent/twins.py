"""Small real servers that stand in for the control plane and for blob storage: HTTP, threads, all in memory."""

from __future__ import annotations

import base64
import re
import threading
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from xml.sax.saxutils import escape

import msgspec

from noriba.agent.protocol import (
    Event,
    LogSize,
    NodeFacts,
    SyncRequest,
    SyncResponse,
    TaskExited,
    TaskPhase,
    TaskSamples,
    TaskSpec,
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, format: str, *args: Any) -> None:
        return

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if "Content-Length" not in (headers or {}):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.wfile.flush()


@dataclass
class _NodeState:
    acked: int = 0
    revision: int = 0
    state: str = "active"
    facts: NodeFacts | None = None
    tasks: dict[str, TaskSpec] = field(default_factory=dict)
    forget: set[str] = field(default_factory=set)
    held: list[str] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    event_times: list[float] = field(default_factory=list)
    incarnations: list[str] = field(default_factory=list)


class ControlPlaneTwin:
    """Speaks the sync protocol of ``noriba.agent.protocol``; refuses what breaks it (``faults``)."""

    def __init__(self) -> None:
        self.nodes: dict[str, _NodeState] = {}
        self.logs: dict[tuple[str, str], bytearray] = {}
        self.faults: list[str] = []
        self.changed = threading.Condition()
        self.token = "node-token"
        self.refuse_with = 0
        self.requests = 0
        self.relay_leaders = True
        self._server: _Server | None = None
        self.port = 0
        self.start()

    # -- life

    def start(self) -> None:
        """Begin to answer (again, at the same port)."""
        twin = self

        class Handler(_Handler):
            def do_POST(self) -> None:
                twin._sync(self)

            def do_GET(self) -> None:
                twin._get(self)

        self._server = _Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Answer no more; what is known stays."""
        server, self._server = self._server, None
        if server is not None:
            with self.changed:
                self.changed.notify_all()
            server.shutdown()
            server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # -- what tests do

    def submit(self, node: str, spec: TaskSpec) -> None:
        with self.changed:
            state = self.nodes.setdefault(node, _NodeState())
            state.revision += 1
            state.tasks[spec.id] = msgspec.structs.replace(spec, revision=state.revision)
            self.changed.notify_all()

    def change(self, node: str, task: str, **values: Any) -> None:
        with self.changed:
            spec = msgspec.structs.replace(self.nodes[node].tasks[task], **values)
        self.submit(node, spec)

    def cancel(self, node: str, task: str, reason: str = "canceled by the user") -> None:
        self.change(node, task, desired="stop", stop_reason=reason)

    def release(self, node: str) -> None:
        with self.changed:
            self.nodes[node].state = "released"
            self.nodes[node].revision += 1
            self.changed.notify_all()

    def forget(self, node: str, task: str) -> None:
        with self.changed:
            self.nodes[node].forget.add(task)
            self.nodes[node].tasks.pop(task, None)
            self.nodes[node].revision += 1
            self.changed.notify_all()

    def wait(self, condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
        """Wait until ``condition`` is true (looked at after every request); returns its value."""
        with self.changed:
            if not self.changed.wait_for(lambda: condition() or self.faults, timeout_s):
                told = [e for n in self.nodes.values() for e in n.events if not isinstance(e, TaskSamples)]
                raise AssertionError(
                    f"nothing came within {timeout_s} s; events: {told[-12:]}; "
                    f"logs: { {k: bytes(v[-800:]) for k, v in self.logs.items()} }"
                )
            assert not self.faults, self.faults
            return condition()

    def events(self, node: str, task: str) -> list[Event]:
        return [e for e in self.nodes.setdefault(node, _NodeState()).events if e.task_id == task]

    def phases(self, node: str, task: str) -> list[str]:
        return [e.phase for e in self.events(node, task) if isinstance(e, TaskPhase)]

    def exited(self, node: str, task: str, timeout_s: float = 30.0) -> TaskExited:
        """Wait for the end of a task."""
        return self.wait(
            lambda: next((e for e in self.events(node, task) if isinstance(e, TaskExited)), None), timeout_s
        )

    def running(self, node: str, task: str, timeout_s: float = 30.0) -> None:
        self.wait(lambda: "running" in self.phases(node, task), timeout_s)

    def log(self, task: str, file: str = "user_logs/std_log.txt") -> bytes:
        with self.changed:
            return bytes(self.logs.get((task, file), b""))

    def log_files(self, task: str) -> list[str]:
        with self.changed:
            return sorted(name for owner, name in self.logs if owner == task)

    # -- the protocol

    def _sync(self, handler: _Handler) -> None:
        body = handler.body()
        if self._server is None or self.refuse_with:
            handler.answer(self.refuse_with or 503)
            return
        if handler.headers.get("Authorization") != f"Bearer {self.token}":
            handler.answer(401)
            return
        node = urllib.parse.unquote(handler.path.split("/")[4])
        request = msgspec.msgpack.decode(body, type=SyncRequest)
        with self.changed:
            self.requests += 1
            state = self.nodes.setdefault(node, _NodeState())
            response = self._apply(state, request)
            self.changed.notify_all()
            known = request.revision
            if request.wait_s and state.revision == known:
                self.changed.wait_for(lambda: state.revision != known or self._server is None, request.wait_s)
                response = self._apply(state, msgspec.structs.replace(request, events=[], logs=[]))
        if self._server is None:
            handler.close_connection = True
            handler.connection.close()
            return
        handler.answer(200, msgspec.msgpack.encode(response))

    def _apply(self, state: _NodeState, request: SyncRequest) -> SyncResponse:
        if request.facts is not None:
            state.facts = request.facts
            state.incarnations.append(request.incarnation)
        if request.tasks_held or request.wait_s:
            state.held = request.tasks_held
        sizes = []
        for chunk in request.logs:
            log = self.logs.setdefault((chunk.task_id, chunk.file), bytearray())
            if chunk.offset > len(log):
                self.faults.append(f"gap in {chunk.file}: {chunk.offset} > {len(log)}")
            else:
                overlap = log[chunk.offset : chunk.offset + len(chunk.data)]
                if chunk.data[: len(overlap)] != overlap:
                    self.faults.append(f"{chunk.file} changed at {chunk.offset}")
                log += chunk.data[len(log) - chunk.offset :]
            sizes.append(LogSize(task_id=chunk.task_id, file=chunk.file, size=len(log)))
        if sum(len(chunk.data) for chunk in request.logs) > 1 << 20:
            self.faults.append("more than 1 MiB of logs in one request")
        for event in request.events:
            if event.seq <= state.acked:
                continue
            if event.seq != state.acked + 1:
                self.faults.append(f"gap in events: {event.seq} after {state.acked}")
            state.acked = event.seq
            state.events.append(event)
            state.event_times.append(time.time())
            if event.__class__.__name__ == "TaskRendezvous" and self.relay_leaders:
                self._relay(event)
        return SyncResponse(
            acked_seq=state.acked,
            revision=state.revision,
            node_state=state.state,  # type: ignore[arg-type]
            log_sizes=sizes,
            tasks=[spec for spec in state.tasks.values() if spec.revision > request.revision],
            forget=sorted(state.forget & set(request.tasks_held)),
        )

    def _relay(self, event: Any) -> None:
        job = next(
            spec.job
            for node in self.nodes.values()
            for spec in node.tasks.values()
            if spec.id == event.task_id
        )
        for node in self.nodes.values():
            for spec in list(node.tasks.values()):
                if spec.job == job:
                    node.revision += 1
                    node.tasks[spec.id] = msgspec.structs.replace(
                        spec, leader=event.address, revision=node.revision
                    )

    def _get(self, handler: _Handler) -> None:
        _, _, _, _, node, _, task = handler.path.split("/")
        with self.changed:
            spec = self.nodes[urllib.parse.unquote(node)].tasks[urllib.parse.unquote(task)]
        handler.answer(200, msgspec.msgpack.encode(spec))


@dataclass
class _Blob:
    content: bytes
    etag: str
    modified: float
    metadata: dict[str, str] = field(default_factory=dict)


class BlobTwin:
    """A container of the Azure Blob API: list, ranged read, put, blocks, delete; a SAS is just a word to know."""

    def __init__(self) -> None:
        self.blobs: dict[str, _Blob] = {}
        self.blocks: dict[str, dict[str, bytes]] = {}
        self.sas = "sig=good"
        self.lock = threading.Lock()
        self.calls: list[tuple[str, str, str]] = []
        self.fail_next: list[int] = []
        self._count = 0
        twin = self

        class Handler(_Handler):
            def do_GET(self) -> None:
                twin._serve(self)

            do_HEAD = do_PUT = do_DELETE = do_GET

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/blob/acct.blob.local/data"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, content: bytes | str, metadata: dict[str, str] | None = None) -> None:
        data = content.encode() if isinstance(content, str) else content
        with self.lock:
            self._count += 1
            self.blobs[name] = _Blob(data, f"0x{self._count}", time.time(), metadata or {})

    def text(self, name: str) -> str:
        return self.blobs[name].content.decode()

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.blobs if name.startswith(prefix))

    def _serve(self, handler: _Handler) -> None:
        body = handler.body()
        parts = urllib.parse.urlsplit(handler.path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        _, _, name = urllib.parse.unquote(parts.path).removeprefix("/blob/").partition("/data")
        name = name.removeprefix("/")
        with self.lock:
            self.calls.append((handler.command, name, query.get("comp", "")))
            if self.fail_next:
                handler.answer(self.fail_next.pop(0))
                return
        if self.sas not in parts.query:
            handler.answer(403, headers={"x-ms-error-code": "AuthenticationFailed"})
        elif handler.command == "GET" and query.get("comp") == "list":
            self._list(handler, query)
        elif handler.command in ("GET", "HEAD"):
            self._read(handler, name)
        elif handler.command == "DELETE":
            with self.lock:
                found = self.blobs.pop(name, None)
            handler.answer(202 if found else 404)
        else:
            self._write(handler, name, query, body)

    def _list(self, handler: _Handler, query: dict[str, str]) -> None:
        with self.lock:
            found = sorted((n, b) for n, b in self.blobs.items() if n.startswith(query.get("prefix", "")))
        start = int(query.get("marker") or 0)
        page, rest = found[start : start + 100], found[start + 100 :]
        items = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{_date(blob.modified)}</Last-Modified>"
            f"<Etag>{blob.etag}</Etag><Content-Length>{len(blob.content)}</Content-Length></Properties><Metadata>"
            + "".join(f"<{k}>{escape(v)}</{k}>" for k, v in blob.metadata.items())
            + "</Metadata></Blob>"
            for name, blob in page
        )
        marker = str(start + 100) if rest else ""
        text = (
            '<?xml version="1.0" encoding="utf-8"?><EnumerationResults>'
            f"<Blobs>{items}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        )
        handler.answer(200, text.encode(), {"Content-Type": "application/xml"})

    def _read(self, handler: _Handler, name: str) -> None:
        with self.lock:
            blob = self.blobs.get(name)
        if blob is None:
            handler.answer(404, headers={"x-ms-error-code": "BlobNotFound"})
            return
        headers = {"ETag": f'"{blob.etag}"', "Last-Modified": _date(blob.modified)}
        headers |= {f"x-ms-meta-{k}": v for k, v in blob.metadata.items()}
        if handler.headers.get("If-Match", f'"{blob.etag}"') != f'"{blob.etag}"':
            handler.answer(412, headers={"x-ms-error-code": "ConditionNotMet"})
            return
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", handler.headers.get("x-ms-range", ""))
        if handler.command == "HEAD":
            handler.answer(200, headers={**headers, "Content-Length": str(len(blob.content))})
        elif match is None:
            handler.answer(200, blob.content, headers)
        else:
            first, last = int(match[1]), int(match[2])
            part = blob.content[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(blob.content)}"
            handler.answer(206, part, headers)

    def _write(self, handler: _Handler, name: str, query: dict[str, str], body: bytes) -> None:
        metadata = {
            key.lower().removeprefix("x-ms-meta-"): value
            for key, value in handler.headers.items()
            if key.lower().startswith("x-ms-meta-")
        }
        if query.get("comp") == "block":
            base64.b64decode(query["blockid"], validate=True)
            with self.lock:
                self.blocks.setdefault(name, {})[query["blockid"]] = body
        elif query.get("comp") == "blocklist":
            with self.lock:
                blocks = self.blocks.pop(name)
            ids = re.findall(r"<Latest>([^<]+)</Latest>", body.decode())
            self.put(name, b"".join(blocks[i] for i in ids), metadata)
        elif handler.headers.get("x-ms-blob-type") != "BlockBlob":
            handler.answer(400, headers={"x-ms-error-code": "MissingRequiredHeader"})
            return
        else:
            self.put(name, body, metadata)
        handler.answer(201, headers={"ETag": '"1"'})


def _date(at: float) -> str:
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(at))
