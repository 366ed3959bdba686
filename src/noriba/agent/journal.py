"""The events that the control plane has not acknowledged yet, on disk.

A file of frames: length and CRC-32 (little-endian, 4 bytes each), then one event as msgpack. A frame cut off by
a crash ends the file. The first frame is the last acknowledged number at the time the file was begun. Numbers
have no gaps; ``append`` gives them out. Not thread-safe: one thread owns a journal.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import msgspec

from noriba.agent.folder import is_disk_full, write_atomic
from noriba.agent.protocol import Event

_FRAME = struct.Struct("<II")
_COMPACT_BYTES = 1 << 18

_encoder = msgspec.msgpack.Encoder()
_events = msgspec.msgpack.Decoder(Event)


class Journal:
    """Open (or make) the journal at ``path``. Damage behind the last whole frame is cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.acked = 0
        self.pending: deque[Event] = deque()
        whole = self._read()
        self.last = self.pending[-1].seq if self.pending else self.acked
        self.opened_at_seq = self.last
        self._file = -1
        self._size = 0
        self._behind = False
        """Whether the file lacks what is pending, as the disk was full."""
        if whole is None:
            self._rewrite()
            return
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._file, whole)
        os.lseek(self._file, 0, os.SEEK_END)
        self._size = whole

    def _read(self) -> int | None:
        """Load the file; returns how many bytes of it are whole, None if there is nothing of use."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        position = 0
        first = True
        while True:
            header = data[position : position + _FRAME.size]
            if len(header) < _FRAME.size:
                break
            length, check = _FRAME.unpack(header)
            body = data[position + _FRAME.size : position + _FRAME.size + length]
            if len(body) < length or zlib.crc32(body) != check:
                break
            if first:
                self.acked = msgspec.msgpack.decode(body, type=int)
                first = False
            else:
                self.pending.append(_events.decode(body))
            position += _FRAME.size + length
        return None if first else position

    def append(self, events: Iterable[Event]) -> None:
        """Number and keep events, so that they survive the agent.

        Not a power cut: what an event tells is found out again from the task's folder then, and ``resume`` agrees
        on the numbers. So no report waits for the disk.
        """
        frames = []
        for event in events:
            self.last += 1
            numbered = msgspec.structs.replace(event, seq=self.last)
            self.pending.append(numbered)
            frames.append(_frame(_encoder.encode(numbered)))
        try:
            if self._behind:
                self._rewrite()
            elif frames:
                self._write(b"".join(frames))
        except OSError as error:
            if not is_disk_full(error):
                raise
            # They are still sent; only a restart of the agent before that would have to find them out again.
            os.ftruncate(self._file, self._size)
            os.lseek(self._file, 0, os.SEEK_END)
            self._behind = True

    def resume(self, acked_seq: int) -> list[Event]:
        """Agree with the control plane on the numbers, once after opening and before anything is sent.

        ``acked_seq`` is the last event that it has. If this file lost its tail (a power cut), or the control
        plane was set back, what is pending and unknown to it gets the numbers that it expects.
        """
        if acked_seq > self.opened_at_seq:
            fresh = [event for event in self.pending if event.seq > self.opened_at_seq]
        elif acked_seq < self.acked:
            fresh = list(self.pending)
        else:
            return self.acknowledge(acked_seq)
        done = [event for event in self.pending if event not in fresh]
        self.pending = deque(
            msgspec.structs.replace(event, seq=acked_seq + i) for i, event in enumerate(fresh, 1)
        )
        self.acked, self.last = acked_seq, acked_seq + len(fresh)
        self._rewrite()
        return done

    def acknowledge(self, seq: int) -> list[Event]:
        """Forget the events up to ``seq``; returns them."""
        done: list[Event] = []
        while self.pending and self.pending[0].seq <= seq:
            done.append(self.pending.popleft())
        self.acked = max(self.acked, seq)
        if not self.pending and self._size > _COMPACT_BYTES:
            self._rewrite()
        return done

    def batch(self, limit: int) -> list[Event]:
        """The oldest events not acknowledged yet, at most ``limit``."""
        return [self.pending[i] for i in range(min(limit, len(self.pending)))]

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]
        self._size += len(data)  # only now: what is torn is cut off

    def _rewrite(self) -> None:
        """Begin the file anew with what is pending."""
        acked = self.pending[0].seq - 1 if self.pending else max(self.acked, self.last)
        frames = [_frame(_encoder.encode(acked)), *(_frame(_encoder.encode(e)) for e in self.pending)]
        content = b"".join(frames)
        write_atomic(self.path, content, durable=True)
        if self._file >= 0:
            os.close(self._file)
        self._file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        os.lseek(self._file, 0, os.SEEK_END)
        self._size = len(content)
        self._behind = False

    def close(self) -> None:
        os.close(self._file)


def _frame(body: bytes) -> bytes:
    return _FRAME.pack(len(body), zlib.crc32(body)) + body
