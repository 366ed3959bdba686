"""What a task leaves: uploads of its outputs and artifacts while it runs and at its end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from noriba.agent import words
from noriba.agent.folder import Progress, TaskFolder, is_disk_full
from noriba.agent.node import Node
from noriba.agent.preparing import Preparer
from noriba.agent.protocol import TaskOutputStored, TaskSpec
from noriba.agent.reporter import Reporter
from noriba.agent.transfer.errors import Cancelled, TransferError
from noriba.agent.transfer.upload import FolderUpload, Stored
from noriba.agent.verdict import Verdict

_log = logging.getLogger(__name__)


class Collector:
    """The uploads of one task."""

    def __init__(
        self,
        node: Node,
        folder: TaskFolder,
        spec: TaskSpec,
        preparer: Preparer,
        say: Callable[[str], None],
    ) -> None:
        self._node = node
        self._folder = folder
        self._spec = spec
        self._say = say
        self.outputs: dict[str, FolderUpload] = preparer.output_uploads()
        base = spec.artifacts.path.rstrip("/")
        self._artifacts = [
            FolderUpload(
                folder.code / name,
                f"{base}/{name}" if base else name,
                lambda: preparer.store(spec.artifacts, lambda renewed: renewed.artifacts, to_keep=True),
                keep_empty_folders=False,
            )
            for name in ("outputs", "logs")
        ]
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Before the start: files that came with the code are no artifacts of the job."""
        if self._spec.code is not None:
            for upload in self._artifacts:
                upload.ignore_present()

    def upload_soon(self) -> None:
        """Upload what has changed, on a thread, unless such an upload is under way."""
        if self._thread is not None and self._thread.is_alive():
            return
        self._thread = threading.Thread(target=self._upload, name="upload", daemon=True)
        self._thread.start()

    def _upload(self) -> None:
        for upload in [*self.outputs.values(), *self._artifacts]:
            try:
                upload.run(final=False)
            except (TransferError, OSError) as error:
                # It is tried again at the next turn, and the last turn tells the user if it still fails.
                _log.warning("task %s: an upload failed for now: %s", self._spec.id, error)
            except Cancelled:
                return

    def has_work(self) -> bool:
        """Whether the end needs more than a look."""
        if self.outputs or self._thread is not None:
            return True
        return any(upload.is_dirty() for upload in self._artifacts)

    def finish(self, reporter: Reporter, progress: Progress) -> list[str]:
        """Upload everything; returns a sentence for each part that could not be stored."""
        if self._thread is not None:
            self._thread.join()
        failures: list[str] = []
        for name, upload in self.outputs.items():
            if name in progress.outputs_stored:
                continue
            stored = self._last(f"output '{name}'", upload, failures)
            if stored is None:
                continue
            reporter.emit(
                TaskOutputStored(
                    seq=0,
                    task_id=self._spec.id,
                    at=time.time(),
                    name=name,
                    file_count=stored.files,
                    size_bytes=stored.size_bytes,
                )
            )
            progress.outputs_stored[name] = (stored.files, stored.size_bytes)
            self._folder.write_progress(progress)
        for upload in self._artifacts:
            self._last(f"the artifacts in ./{upload.root.name}", upload, failures)
        return failures

    def _last(self, what: str, upload: FolderUpload, failures: list[str]) -> Stored | None:
        begun = time.monotonic()
        try:
            stored = upload.run(final=True)
        except TransferError as error:
            failures.append(f"{what}: {error}")
            return None
        except OSError as error:
            if is_disk_full(error):
                raise
            failures.append(f"{what}: {error.strerror or error}")
            return None
        if stored.files or stored.sent_files:
            self._say(
                f"{what}: {stored.files} files, {words.human_bytes(stored.size_bytes)} stored "
                f"({stored.sent_files} of them now, in {words.duration(time.monotonic() - begun)})"
            )
        if stored.skipped:
            names = ", ".join(stored.skipped[:5]) + (" …" if len(stored.skipped) > 5 else "")
            self._say(f"{what}: not stored, as they are no files or lead outside of the folder: {names}")
        return stored


def add_finalization(found: Verdict, failures: list[str]) -> Verdict:
    """The verdict when some of what the task left could not be stored."""
    if not failures:
        return found
    said = "; ".join(failures)
    if found.outcome == "completed":
        return replace(
            found,
            outcome="failed",
            code="OutputUploadFailed",
            message=f"The job ran well, but not all of its results could be stored: {said}",
            user_error=False,
        )
    return replace(found, message=f"{found.message} Besides, not all of its results could be stored: {said}")
