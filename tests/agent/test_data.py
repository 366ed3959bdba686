"""Code, inputs, outputs and artifacts of tasks, through a real blob endpoint."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noriba.agent.protocol import Location, TaskInput, TaskOutput, TaskOutputStored, TaskWarning
from tests.agent.conftest import wait_until


def stored(node: Any, task: str) -> dict[str, tuple[int, int]]:
    return {
        e.name: (e.file_count, e.size_bytes)
        for e in node.control_plane.events(node.name, task)
        if isinstance(e, TaskOutputStored)
    }


def test_code_is_a_private_working_folder(node: Any) -> None:
    node.blobs.put("code/main.py", "import pkg.part; print('from', __file__)")
    node.blobs.put("code/pkg/part.py", "print('part')")
    node.blobs.put("code/run.sh", "#!/bin/bash\necho script ran\n")
    for _ in range(2):
        end = node.run("python main.py && ./run.sh && echo bad > main.py", code=node.location("code"))
        assert end.outcome == "completed"
        log = node.control_plane.log(f"job-{node._count}.0").decode()
        assert log.startswith("part\nfrom ")
        assert "script ran" in log
    reads = [name for method, name, comp in node.blobs.calls if method == "GET" and comp != "list"]
    assert sorted(reads) == ["code/main.py", "code/pkg/part.py", "code/run.sh"], (
        "the second came from the cache"
    )


def test_code_may_be_a_single_file(node: Any) -> None:
    node.blobs.put("c1/main.py", "print('single')")
    node.run("python main.py", code=node.location("c1/main.py"))
    assert node.control_plane.log("job-1.0") == b"single\n"


def test_a_read_only_input_can_not_be_changed(node: Any) -> None:
    node.blobs.put("data/a.txt", "content")
    node.blobs.put("data/deep/b.txt", "b")
    command = (
        "cat ${{inputs.d}}/a.txt ${{inputs.d}}/deep/b.txt; "
        "echo x > ${{inputs.d}}/a.txt || echo refused; touch ${{inputs.d}}/new || echo refused; "
        "rm -f ${{inputs.d}}/a.txt || echo refused; mv ${{inputs.d}}/deep/b.txt ${{inputs.d}}/c || echo refused"
    )
    for _ in range(2):
        node.run(command, inputs={"d": TaskInput(type="uri_folder", source=node.location("data"))})
        log = node.control_plane.log(f"job-{node._count}.0").decode()
        assert log.startswith("contentb")
        assert log.count("refused") == 4
    cached = [p for p in (node.work_dir / "cache").rglob("*") if p.is_file()]
    assert sorted(p.read_text() for p in cached) == ["b", "content"]


def test_a_downloaded_input_is_writable_and_its_own(node: Any) -> None:
    node.blobs.put("data/a.txt", "content")
    source = node.location("data")
    for _ in range(2):
        node.run(
            "cat ${{inputs.d}}/a.txt; echo changed >> ${{inputs.d}}/a.txt && rm ${{inputs.d}}/a.txt && echo ok",
            inputs={"d": TaskInput(type="uri_folder", source=source, mode="download")},
        )
        assert node.control_plane.log(f"job-{node._count}.0") == b"contentok\n"


def test_a_changed_blob_is_fetched_anew(node: Any) -> None:
    spec = {"f": TaskInput(type="uri_file", source=node.location("one.txt"))}
    for content in ("first", "other"):
        node.blobs.put("one.txt", content)
        node.run("cat $AZURE_ML_INPUT_f", inputs=spec)
        assert node.control_plane.log(f"job-{node._count}.0") == content.encode()


def test_all_kinds_of_inputs_and_their_values(node: Any) -> None:
    for name in ("f/one.csv", "m/MLmodel", "m/data/model.bin", "c/model.pkl", "t/MLTable", "t/x.csv"):
        node.blobs.put(name, name)
    inputs = {
        "lit": TaskInput(type="literal", value="a b"),
        "file": TaskInput(type="uri_file", source=node.location("f/one.csv"), mode="download"),
        "mlflow": TaskInput(type="mlflow_model", source=node.location("m/")),
        "custom_file": TaskInput(type="custom_model", source=node.location("c/model.pkl")),
        "custom_folder": TaskInput(type="custom_model", source=node.location("m")),
        "table": TaskInput(type="mltable", source=node.location("t")),
        "direct": TaskInput(type="uri_folder", source=node.location("t", uri="azureml://x/t"), mode="direct"),
        "group.sub": TaskInput(type="literal", value="g"),
    }
    end = node.run(
        "echo '${{inputs.lit}}' ${{inputs.group.sub}} ${{inputs.direct}} $[[opt ${{inputs.absent}}]]; "
        "cat ${{inputs.file}} ${{inputs.file.path}} ${{inputs.mlflow}}/MLmodel ${{inputs.mlflow}}/data/model.bin "
        "${{inputs.custom_file}} ${{inputs.custom_folder}}/MLmodel ${{inputs.table}}/MLTable; "
        'test "$AZUREML_DATAREFERENCE_file" = ${{inputs.file}} && echo " same"; basename ${{inputs.file}}; '
        "find ${{inputs.custom_file}} -type f | wc -l",
        inputs=inputs,
    )
    assert end.outcome == "completed", end.message
    assert node.control_plane.log("job-1.0").decode().splitlines() == [
        "a b g azureml://x/t",
        "f/one.csvf/one.csvm/MLmodelm/data/model.binc/model.pklm/MLmodelt/MLTable same",
        "one.csv",
        "1",
    ]


def test_an_mltable_is_evaluated(node: Any) -> None:
    node.blobs.put("t/MLTable", "paths:\n  - file: ./a.csv\n  - pattern: ./more/*.csv\n  - folder: sub\n")
    for name in ("a.csv", "more/b.csv", "more/c.txt", "sub/d.bin", "other.csv"):
        node.blobs.put(f"t/{name}", name)
    node.run(
        "cd ${{inputs.t}} && find . -type f | sort",
        inputs={"t": TaskInput(type="mltable", source=node.location("t"), mode="eval_mount")},
    )
    assert node.control_plane.log("job-1.0").split() == [b"./a.csv", b"./more/b.csv", b"./sub/d.bin"]


@pytest.mark.parametrize(
    ("kind", "path", "words"),
    [
        ("uri_folder", "nothing", "does not exist"),
        ("uri_file", "nothing", "does not exist"),
        ("uri_file", "data", "is a folder, not a file; use type uri_folder"),
        ("uri_folder", "data/a.txt", "is a file, not a folder; use type uri_file"),
        ("custom_model", "nothing", "does not exist"),
    ],
)
def test_a_missing_input_is_named(node: Any, kind: Any, path: str, words: str) -> None:
    node.blobs.put("data/a.txt", "x")
    end = node.run("true", inputs={"training_data": TaskInput(type=kind, source=node.location(path))})
    assert (end.outcome, end.code) == ("failed", "InputNotFound")
    assert "Input 'training_data'" in end.message
    assert f"azureml://datastores/test/paths/{path}" in end.message
    assert words in end.message


def test_a_refused_credential_is_told(node: Any) -> None:
    node.blobs.put("data/a.txt", "x")
    source = msgspec.structs.replace(node.location("data"), sas="sig=bad")
    end = node.run("true", inputs={"d": TaskInput(type="uri_folder", source=source)})
    assert end.code == "AccessDenied"
    assert "not allowed to list it" in end.message


def test_an_expired_sas_is_renewed(node: Any) -> None:
    node.blobs.put("data/a.txt", "fresh")
    old = node.location("data")
    task = node.submit(
        "until [ -e $HOME/go ]; do sleep 0.02; done; echo out > ${{outputs.o}}/f",
        outputs={"o": TaskOutput(type="uri_folder", target=node.location("o"))},
    )
    node.control_plane.running(node.name, task)
    node.blobs.sas = "sig=newer"
    with node.control_plane.changed:
        state = node.control_plane.nodes[node.name]
        spec = state.tasks[task]
        state.tasks[task] = msgspec.structs.replace(
            spec,
            outputs={"o": TaskOutput(type="uri_folder", target=node.location("o"))},
            artifacts=node.location(spec.artifacts.path),
        )
    (node.folder(task) / "home" / "go").touch()
    assert node.control_plane.exited(node.name, task).outcome == "completed"
    assert node.blobs.text("o/f") == "out\n"
    assert old.sas != node.blobs.sas


def test_storage_that_stumbles_is_tried_again(node: Any) -> None:
    node.blobs.put("data/a.txt", "x")
    node.blobs.fail_next = [500, 503]
    end = node.run(
        "cat ${{inputs.d}}/a.txt", inputs={"d": TaskInput(type="uri_folder", source=node.location("data"))}
    )
    assert end.outcome == "completed"


def test_names_that_would_leave_the_folder_are_refused(node: Any) -> None:
    node.blobs.put("data/../../../etc/evil", "x")
    end = node.run("true", inputs={"d": TaskInput(type="uri_folder", source=node.location("data"))})
    assert end.outcome == "failed"
    assert "can not be a file on the node" in end.message


def test_many_and_large_blobs(node: Any) -> None:
    big = os.urandom(40_000_000)
    node.blobs.put("d/big.bin", big)
    for i in range(250):
        node.blobs.put(f"d/many/{i:03}.txt", str(i))
    node.blobs.put("d/empty.txt", "")
    end = node.run(
        "cd ${{inputs.d}}; find . -type f | wc -l; sha256sum big.bin > ${{outputs.o}}/sum; cp big.bin ${{outputs.o}}",
        inputs={"d": TaskInput(type="uri_folder", source=node.location("d"))},
        outputs={"o": TaskOutput(type="uri_folder", target=node.location("o/"))},
    )
    assert end.outcome == "completed"
    assert node.control_plane.log("job-1.0") == b"252\n"
    assert node.blobs.blobs["o/big.bin"].content == big
    assert ("PUT", "o/big.bin", "block") in node.blobs.calls
    assert stored(node, "job-1.0")["o"][0] == 2


def test_outputs_are_stored_with_empty_files_and_folders(node: Any) -> None:
    outputs = {
        "folder": TaskOutput(type="uri_folder", target=node.location("out/folder")),
        "file": TaskOutput(type="uri_file", target=node.location("out/file/model.pkl"), mode="upload"),
        "none": TaskOutput(type="uri_folder", target=node.location("out/none")),
        "direct": TaskOutput(type="uri_folder", target=node.location("out/d", uri="az://d"), mode="direct"),
    }
    end = node.run(
        "cd ${{outputs.folder}}; echo a > a; mkdir -p empty/inner deep/er; : > deep/er/zero; ln -s a link; "
        "ln -s /etc/passwd stolen; mkfifo pipe; ln -s . loop; echo m > ${{outputs.file}}; "
        "echo $AZURE_ML_OUTPUT_file ${{outputs.direct}}",
        outputs=outputs,
    )
    assert end.outcome == "completed"
    assert node.blobs.names("out/") == [
        "out/file/model.pkl", "out/folder/a", "out/folder/deep/er/zero",
        "out/folder/empty/inner", "out/folder/link", "out/none",
    ]  # fmt: skip
    assert node.blobs.text("out/folder/link") == "a\n"
    assert node.blobs.blobs["out/folder/empty/inner"].metadata == {"hdi_isfolder": "true"}
    assert stored(node, "job-1.0") == {"folder": (3, 4), "file": (1, 2), "none": (0, 0)}
    log = node.control_plane.log("job-1.0").decode()
    assert log.endswith("/outputs/file/model.pkl az://d\n")
    system = node.control_plane.log("job-1.0", "system_logs/lifecycler/node-0.log").decode()
    assert "not stored, as they are no files or lead outside of the folder: loop, pipe, stolen" in system


def test_an_output_can_be_the_next_jobs_input(node: Any) -> None:
    target = node.location("mid")
    node.run(
        "mkdir -p ${{outputs.o}}/empty; echo hi > ${{outputs.o}}/f",
        outputs={"o": TaskOutput(type="uri_folder", target=target)},
    )
    node.run(
        "cd ${{inputs.i}}; find . | sort",
        inputs={"i": TaskInput(type="uri_folder", source=node.location("mid"))},
    )
    assert node.control_plane.log("job-2.0") == b".\n./empty\n./f\n"
    node.run("true", outputs={"o": TaskOutput(type="uri_folder", target=node.location("void"))})
    end = node.run(
        "ls -A ${{inputs.i}} | wc -l",
        inputs={"i": TaskInput(type="uri_folder", source=node.location("void"))},
    )
    assert end.outcome == "completed", "an empty output is an empty folder, not a missing one"


def test_a_mounted_output_shows_what_is_there_and_follows_deletions(node: Any) -> None:
    node.blobs.put("ck/epoch1", "1")
    node.blobs.put("ck/keep/me", "k")
    end = node.run(
        "cat ${{outputs.ck}}/epoch1 && rm ${{outputs.ck}}/epoch1 && echo 2 > ${{outputs.ck}}/epoch2",
        outputs={"ck": TaskOutput(type="uri_folder", target=node.location("ck"))},
    )
    assert end.outcome == "completed"
    assert node.blobs.names("ck/") == ["ck/epoch2", "ck/keep/me"]
    puts = [name for method, name, _ in node.blobs.calls if method == "PUT"]
    assert puts == ["ck/epoch2"], "what was there is not sent again"


def test_an_uploaded_output_starts_empty(node: Any) -> None:
    node.blobs.put("up/old", "1")
    node.run(
        "ls -A ${{outputs.o}}; echo new > ${{outputs.o}}/new",
        outputs={"o": TaskOutput(type="uri_folder", target=node.location("up"), mode="upload")},
    )
    assert node.control_plane.log("job-1.0") == b""
    assert node.blobs.names("up/") == ["up/new", "up/old"]


def test_outputs_and_artifacts_go_up_while_the_task_runs(make_node: Any) -> None:
    node = make_node().start("--upload-s", "0.3")
    task = node.submit(
        "echo 1 > ${{outputs.o}}/ckpt; echo a > outputs/a; mkdir -p logs/tb; echo t > logs/tb/events; "
        "until [ -e $HOME/go ]; do sleep 0.05; done; rm ${{outputs.o}}/ckpt; echo 2 > ${{outputs.o}}/last",
        outputs={"o": TaskOutput(type="uri_folder", target=node.location("o"))},
    )
    wait_until(
        lambda: (
            node.blobs.names()
            == [f"ExperimentRun/dcid.job-1/{n}" for n in ("logs/tb/events", "outputs/a")] + ["o/ckpt"]
        )
    )
    (node.folder(task) / "home" / "go").touch()
    assert node.control_plane.exited(node.name, task).outcome == "completed"
    assert node.blobs.names("o") == ["o/last"]


def test_artifacts_of_a_failed_job_are_kept(node: Any) -> None:
    end = node.run("echo partial > outputs/result; exit 1")
    assert end.outcome == "failed"
    assert node.blobs.text("ExperimentRun/dcid.job-1/outputs/result") == "partial\n"


def test_files_that_came_with_the_code_are_no_artifacts(node: Any) -> None:
    node.blobs.put("code/outputs/old.txt", "from the laptop")
    node.blobs.put("code/outputs/changed.txt", "before")
    node.run("echo after > outputs/changed.txt", code=node.location("code"))
    assert node.blobs.names("ExperimentRun") == ["ExperimentRun/dcid.job-1/outputs/changed.txt"]


def test_outputs_that_can_not_be_stored_fail_the_job(node: Any) -> None:
    target = msgspec.structs.replace(node.location("o"), sas="sig=bad")
    end = node.run(
        "echo x > ${{outputs.o}}/x",
        outputs={"o": TaskOutput(type="uri_folder", target=target, mode="upload")},
    )
    assert (end.outcome, end.code) == ("failed", "OutputUploadFailed")
    assert "output 'o'" in end.message


def test_finalising_survives_a_killed_agent(node: Any) -> None:
    task = node.submit(
        "echo up; until [ -e $HOME/go ]; do sleep 0.05; done; echo x > ${{outputs.o}}/x; echo y > outputs/y",
        outputs={"o": TaskOutput(type="uri_folder", target=node.location("o"))},
    )
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    node.kill()
    (node.folder(task) / "home" / "go").touch()
    wait_until((node.folder(task) / "exit.json").exists)
    node.start()
    assert node.control_plane.exited(node.name, task).outcome == "completed"
    assert node.blobs.names() == ["ExperimentRun/dcid.job-1/outputs/y", "o/x"]
    assert stored(node, task) == {"o": (1, 2)}


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "iris data.csv").write_text("1,2,3\n")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self) -> None:
            if self.path == "/moved":
                self.send_response(302)
                self.send_header("Location", "/iris%20data.csv")
                self.end_headers()
                return
            super().do_GET()

        def log_message(self, *arguments: Any) -> None:
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def test_a_file_from_the_web(node: Any, web: str) -> None:
    inputs = {
        "a": TaskInput(type="uri_file", source=Location(kind="http", url=f"{web}/iris%20data.csv")),
        "b": TaskInput(type="uri_file", source=Location(kind="http", url=f"{web}/moved"), mode="download"),
    }
    end = node.run("cat '${{inputs.a}}' ${{inputs.b}}; basename '${{inputs.a}}'", inputs=inputs)
    assert end.outcome == "completed", end.message
    assert node.control_plane.log("job-1.0") == b"1,2,3\n1,2,3\niris data.csv\n"


@pytest.mark.parametrize(
    ("kind", "path", "code", "words"),
    [
        ("uri_file", "missing.csv", "InputNotFound", "does not exist (HTTP 404)"),
        ("uri_folder", "", "InputInvalid", "can not be listed"),
    ],
)
def test_web_inputs_that_can_not_be(node: Any, web: str, kind: Any, path: str, code: str, words: str) -> None:
    source = Location(kind="http", url=f"{web}/{path}", uri="https://example.org/" + path)
    end = node.run("true", inputs={"d": TaskInput(type=kind, source=source)})
    assert (end.code, "Input 'd'" in end.message, words in end.message) == (code, True, True), end.message


def test_an_object_store(node: Any, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    (bucket / "data/sub").mkdir(parents=True)
    (bucket / "data/a.txt").write_text("A")
    (bucket / "data/sub/b.txt").write_text("B")
    (bucket / "datadata").mkdir()
    (bucket / "datadata/c.txt").write_text("C")

    def place(path: str) -> Location:
        return Location(kind="object_store", url=f"file://{bucket}", path=path, uri=f"s3://b/{path}")

    end = node.run(
        "cd ${{inputs.d}}; cat a.txt sub/b.txt; find . -type f | wc -l; cat ${{inputs.f}}; "
        "echo out > ${{outputs.o}}/x; head -c 9000000 /dev/zero > ${{outputs.o}}/big",
        inputs={
            "d": TaskInput(type="uri_folder", source=place("data")),
            "f": TaskInput(type="uri_file", source=place("data/sub/b.txt")),
        },
        outputs={"o": TaskOutput(type="uri_folder", target=place("out"))},
    )
    assert end.outcome == "completed", end.message
    assert node.control_plane.log("job-1.0") == b"AB2\nB"
    assert (bucket / "out/x").read_text() == "out\n"
    assert (bucket / "out/big").stat().st_size == 9_000_000
    end = node.run("true", inputs={"d": TaskInput(type="uri_folder", source=place("nope"))})
    assert (end.code, "s3://b/nope" in end.message) == ("InputNotFound", True)


def test_an_output_too_large_to_show_is_a_warning(node: Any) -> None:
    node.blobs.put("huge/f", "x")
    real = node.blobs.blobs["huge/f"]

    class Vast(bytes):
        def __len__(self) -> int:
            return 1 << 60

    real.content = Vast(b"x")
    end = node.run(
        "ls -A ${{outputs.o}}", outputs={"o": TaskOutput(type="uri_folder", target=node.location("huge"))}
    )
    assert end.outcome == "completed"
    warnings = [e for e in node.control_plane.events(node.name, "job-1.0") if isinstance(e, TaskWarning)]
    assert [w.code for w in warnings] == ["OutputNotShown"]
