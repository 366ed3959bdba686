"""What lies before the start of a task: its code, inputs and outputs on the node's disk.

Each step may be done again; ``Progress`` says which are behind us.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath

from noriba.agent import mltable, words
from noriba.agent.folder import Progress, TaskFolder, remove_tree
from noriba.agent.node import Node
from noriba.agent.protocol import Location, TaskInput, TaskOutput, TaskSpec
from noriba.agent.transfer import http
from noriba.agent.transfer.cache import copy_file, link_or_copy
from noriba.agent.transfer.download import Delivery, Fetched, make_read_only, safe_relative
from noriba.agent.transfer.errors import NotFound, TransferError, Unsupported
from noriba.agent.transfer.store import Store, open_store
from noriba.agent.transfer.upload import FolderUpload

_FOLDER_TYPES = ("uri_folder", "mltable", "mlflow_model", "triton_model")
_HYDRATE_BYTES = 50 << 30

Warn = Callable[[str, str], None]
"""Called with a code and a sentence for the job's owner."""


class Preparer:
    """Fetches what a task needs. ``fetch_spec`` gets the task again, with fresh SAS."""

    def __init__(
        self,
        node: Node,
        folder: TaskFolder,
        spec: TaskSpec,
        progress: Progress,
        log: Callable[[str], None],
        warn: Warn,
        fetch_spec: Callable[[], TaskSpec],
        cancelled: Callable[[], bool],
        abandoned: Callable[[], bool],
    ) -> None:
        self._node = node
        self._folder = folder
        self._spec = spec
        self._progress = progress
        self._log = log
        self._warn = warn
        self._fetch_spec = fetch_spec
        self._cancelled = cancelled
        self._abandoned = abandoned

    def store(
        self, location: Location, find: Callable[[TaskSpec], Location | None], *, to_keep: bool = False
    ) -> Store:
        """A store for ``location``; ``find`` picks the same place from a renewed spec.

        ``to_keep``: for what the task leaves, which is stored although the task is to stop.
        """
        return open_store(
            location,
            self._node.pool,
            renew=lambda: find(self._fetch_spec()) or location,
            cancelled=self._abandoned if to_keep else self._cancelled,
        )

    # -- code ---------------------------------------------------------------------------------------------

    def code(self) -> None:
        """The working folder: a private copy of the code, with ``outputs`` and ``logs`` in it."""
        if not self._progress.code_ready:
            if self._folder.code.exists():
                shutil.rmtree(self._folder.code)
            self._folder.code.mkdir()
            if self._spec.code is not None:
                self._fetch_code(self._spec.code)
            self._progress.code_ready = True
        for name in ("outputs", "logs"):
            path = self._folder.code / name
            if not path.exists():
                path.mkdir()

    def _fetch_code(self, location: Location) -> None:
        begun = time.monotonic()
        store = self.store(location, lambda spec: spec.code)
        downloader = self._node.downloader
        try:
            got = downloader.folder(store, location.url, location.path, self._folder.code, "code")
        except NotFound as error:
            name = PurePosixPath(location.path).name
            try:
                got = downloader.file(store, location.url, location.path, self._folder.code / name, "code")
            except NotFound:
                raise TransferError(f"The job's code is not there any more: {error}") from error
        self._log(f"code: {_told(got, begun)}")

    def build_context(self, location: Location) -> Path:
        """The folder of an environment's build context."""
        target = self._folder.root / "context"
        store = self.store(location, lambda spec: spec.environment.build_context)
        self._node.downloader.folder(store, location.url, location.path, target, "private")
        return target

    # -- inputs -------------------------------------------------------------------------------------------

    def input_values(self) -> dict[str, str | None]:
        """What each input stands for: a literal's text, a path or (direct) a URI."""
        values: dict[str, str | None] = {}
        for name, item in self._spec.inputs.items():
            if item.type == "literal" or item.source is None:
                values[name] = item.value
            elif item.mode == "direct":
                values[name] = item.source.uri or item.source.url
            else:
                values[name] = str(self._input_path(name, item, item.source))
        return values

    def _input_path(self, name: str, item: TaskInput, source: Location) -> Path:
        root = self._folder.inputs / safe_relative(name)
        # A custom model may be a file or a folder; which of the two is known once it is there.
        is_file = item.type == "uri_file" or name in self._progress.file_inputs
        if not is_file:
            return root
        return root / (http.file_name(source.url) if source.kind == "http" else _base_name(source.path))

    def inputs(self) -> None:
        """Bring every input that is not there yet."""
        for name, item in self._spec.inputs.items():
            if item.type == "literal" or item.source is None or item.mode == "direct":
                continue
            if name in self._progress.inputs_ready:
                continue
            begun = time.monotonic()
            try:
                got = self._fetch_input(name, item, item.source)
            except TransferError as error:
                uri = item.source.uri or item.source.url
                message = f"Input '{name}' ({uri}): {error}."
                wrapped = type(error)(message.replace("..", "."))
                raise wrapped from error
            self._progress.inputs_ready.append(name)
            self._folder.write_progress(self._progress)
            self._log(f"input {name} ({item.mode}): {_told(got, begun)}")

    def _fetch_input(self, name: str, item: TaskInput, source: Location) -> Fetched:
        root = self._folder.inputs / safe_relative(name)
        _clear(root)
        writable = item.mode in ("download", "eval_download")
        delivery: Delivery = "private" if writable else "shared"
        if source.kind == "http":
            return self._fetch_web(name, item, source, root, delivery)
        store = self.store(source, lambda spec: spec.inputs[name].source)
        downloader = self._node.downloader
        if item.type == "uri_file":
            got = downloader.file(store, source.url, source.path, root / _base_name(source.path), delivery)
        elif item.type == "custom_model":
            got = self._fetch_custom(name, store, source, root, delivery)
        elif item.type == "mltable" and item.mode.startswith("eval_"):
            got = self._evaluate(store, source, root, delivery)
        else:
            got = downloader.folder(store, source.url, source.path, root, delivery)
        if delivery == "shared":
            make_read_only(root)
        return got

    def _fetch_custom(
        self, name: str, store: Store, source: Location, root: Path, delivery: Delivery
    ) -> Fetched:
        try:
            return self._node.downloader.folder(store, source.url, source.path, root, delivery)
        except NotFound:
            got = self._node.downloader.file(
                store, source.url, source.path, root / _base_name(source.path), delivery
            )
            self._progress.file_inputs.append(name)
            return got

    def _fetch_web(
        self, name: str, item: TaskInput, source: Location, root: Path, delivery: Delivery
    ) -> Fetched:
        if item.type in _FOLDER_TYPES:
            raise Unsupported(
                f"a web address names one file and can not be listed, so it can not be a {item.type}; "
                "use type uri_file, or put the data into a datastore"
            )
        root.mkdir(parents=True)
        target = root / http.file_name(source.url)
        with open(target, "wb") as file:
            size = http.fetch(
                source.url, source.uri or source.url, file.fileno(), self._node.trust.context, self._cancelled
            )
        if item.type == "custom_model":
            self._progress.file_inputs.append(name)
        if delivery == "shared":
            target.chmod(0o444)
            make_read_only(root)
        return Fetched(files=1, size_bytes=size)

    def _evaluate(self, store: Store, source: Location, root: Path, delivery: Delivery) -> Fetched:
        whole = root.with_name(f".mltable-{root.name}")
        _clear(whole)
        got = self._node.downloader.folder(store, source.url, source.path, whole, delivery)
        root.mkdir(parents=True)
        for path, name in mltable.referenced_files(whole):
            target = root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if delivery == "shared" and self._node.downloader.share_links:
                link_or_copy(path, target)
            else:
                copy_file(path, target, 0o644 if delivery == "private" else 0o444)
        _clear(whole)
        return got

    def read_only_inputs(self) -> list[Path]:
        """Inputs that the task may look at but not change."""
        return [
            self._folder.inputs / safe_relative(name)
            for name, item in self._spec.inputs.items()
            if item.source is not None and item.mode in ("ro_mount", "eval_mount")
        ]

    # -- outputs ------------------------------------------------------------------------------------------

    def output_path(self, name: str, output: TaskOutput) -> Path:
        """The local path of an output: a folder, or (uri_file) a file that the task is to write."""
        root = self._folder.outputs / safe_relative(name)
        return root / _base_name(output.target.path) if output.type == "uri_file" else root

    def output_values(self) -> dict[str, str]:
        """What each output stands for: a path or (direct) a URI."""
        return {
            name: (output.target.uri or output.target.url)
            if output.mode == "direct"
            else str(self.output_path(name, output))
            for name, output in self._spec.outputs.items()
        }

    def output_uploads(self) -> dict[str, FolderUpload]:
        """An upload for every output that has one."""
        return {
            name: FolderUpload(
                self.output_path(name, output),
                output.target.path,
                partial(self._keeping_store, name),
                keep_empty_folders=True,
            )
            for name, output in self._spec.outputs.items()
            if output.mode != "direct"
        }

    def _keeping_store(self, name: str) -> Store:
        return self.store(
            self._spec.outputs[name].target, lambda spec: spec.outputs[name].target, to_keep=True
        )

    def outputs(self, uploads: dict[str, FolderUpload]) -> None:
        """Make the folders of the outputs; ``rw_mount`` ones show what their place already holds."""
        for name, upload in uploads.items():
            output = self._spec.outputs[name]
            is_file = output.type == "uri_file"
            folder = upload.root.parent if is_file else upload.root
            if name not in self._progress.outputs_ready:
                _clear(folder)
                folder.mkdir(parents=True)
                if output.mode == "rw_mount":
                    self._show_present(name, output, upload, is_file)
                self._progress.outputs_ready.append(name)
                self._folder.write_progress(self._progress)

    def _show_present(self, name: str, output: TaskOutput, upload: FolderUpload, is_file: bool) -> None:
        target = output.target
        store = self.store(target, lambda spec: spec.outputs[name].target)
        begun = time.monotonic()
        if is_file:
            blob = store.head(target.path)
            present = [blob] if blob is not None and not blob.is_folder else []
        else:
            present = list(store.list(target.path.rstrip("/") + "/" if target.path else ""))
        if not present:
            return
        size = sum(blob.size for blob in present)
        disk = os.statvfs(upload.root.parent)
        if size > min(_HYDRATE_BYTES, disk.f_bavail * disk.f_frsize // 2):
            self._warn(
                "OutputNotShown",
                f"The place of output '{name}' already holds {words.human_bytes(size)}, too much to show on the "
                "node: the job writes to it, but does not see what is there.",
            )
            return
        downloader = self._node.downloader
        if is_file:
            got = downloader.file(store, target.url, target.path, upload.root, "private")
        else:
            got = downloader.folder(store, target.url, target.path, upload.root, "private")
        upload.take_as_stored()
        self._log(f"output {name} already holds something: {_told(got, begun)}")


def _base_name(path: str) -> str:
    return safe_relative(path).name


def _clear(path: Path) -> None:
    """Remove what a broken-off attempt left."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        remove_tree(path)


def _told(got: Fetched, begun: float) -> str:
    files = "1 file" if got.files == 1 else f"{got.files} files"
    cached = f", {got.cached_files} of them from the node's cache" if got.cached_files else ""
    return (
        f"{files}, {words.human_bytes(got.size_bytes)} in {words.duration(time.monotonic() - begun)}{cached}"
    )
