"""``noriba job``, with real jobs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.conftest import Noriba, clean_environment, result, run_noriba
from tests.server import ServerProcess

pytestmark = pytest.mark.sdk

ENVIRONMENT = "azureml://registries/azureml/environments/sklearn-1.5/labels/latest"


def write_job(folder: Path, **fields: Any) -> Path:
    """A job's YAML file with a folder of code beside it."""
    (folder / "src").mkdir(exist_ok=True)
    (folder / "src" / "main.py").write_text("import sys\nprint('arguments:', *sys.argv[1:])\n")
    described = {
        "$schema": "https://azuremlschemas.azureedge.net/latest/commandJob.schema.json",
        "command": "python main.py",
        "code": "src",
        "environment": ENVIRONMENT,
        "experiment_name": "command-line",
        **fields,
    }
    file = folder / "job.yml"
    file.write_text(yaml.safe_dump(described))
    return file


@pytest.fixture(scope="module")
def finished(
    server: ServerProcess, tmp_path_factory: pytest.TempPathFactory
) -> subprocess.CompletedProcess[str]:
    """``noriba job create --stream`` of a job named cli-finished, run to its end."""
    folder = tmp_path_factory.mktemp("finished")
    write_job(
        folder,
        command="python main.py ${{inputs.text}} && mkdir -p outputs && echo artifact > outputs/a.txt"
        " && echo output > ${{outputs.result}}/f.txt",
        inputs={"text": "replaced"},
        outputs={"result": {"type": "uri_folder"}},
        tags={"kept": "yes"},
    )
    arguments = ["job", "create", "--file", "job.yml", "--name", "cli-finished", "--stream"]
    sets = [
        "--set",
        "inputs.text=from-flag",
        "display_name=Shown",
        "tags.colour=blue",
        "--save-as",
        "made.yml",
    ]
    done = run_noriba(*arguments, *sets, home=server.home.path, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((folder / "made.yml").read_text())["name"] == "cli-finished"
    return done


def test_create_and_stream(finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.stdout == "arguments: from-flag\n", "standard output is the job's alone"
    told = finished.stderr
    assert "cli-finished  https://127.0.0.1:" in told
    assert told.rstrip().endswith("  Completed")
    assert "experimental" not in told
    assert "\x1b[" not in told


def test_timeline_and_utilization(finished: object, noriba: Noriba) -> None:
    told = result(noriba("job", "timeline", "-n", "cli-finished"))
    statuses = [event["status"] for event in told if event["kind"] == "status"]
    assert (statuses[0], statuses[-1]) == ("Queued", "Completed")
    table = noriba("job", "timeline", "-n", "cli-finished", "-o", "table").stdout
    assert "Placed on" in table
    used = result(noriba("job", "utilization", "-n", "cli-finished"))
    assert used
    assert {"rank", "at", "cpu_percent", "memory_bytes"} <= set(used[0])


def test_show(finished: object, noriba: Noriba) -> None:
    shown = result(noriba("job", "show", "-n", "cli-finished"))
    assert shown["name"] == "cli-finished"
    assert (shown["status"], shown["type"]) == ("Completed", "command")
    assert (shown["display_name"], shown["experiment_name"]) == ("Shown", "command-line")
    assert shown["inputs"] == {"text": "from-flag"}
    assert {"kept": "yes", "colour": "blue"}.items() <= shown["tags"].items()
    assert shown["outputs"]["result"]["type"] == "uri_folder"
    assert shown["environment"] == ENVIRONMENT
    query = noriba("job", "show", "-n", "cli-finished", "--query", "[name, status]", "-o", "tsv")
    assert query.stdout.split() == ["cli-finished", "Completed"]
    as_yaml = noriba("job", "show", "-n", "cli-finished", "-o", "yaml")
    assert yaml.safe_load(as_yaml.stdout) == shown


def test_list(finished: object, noriba: Noriba) -> None:
    listed = result(noriba("job", "list", "--all-results"))
    assert "cli-finished" in [item["name"] for item in listed]
    table = noriba("job", "list", "-o", "table").stdout
    assert table.splitlines()[0].split()[:3] == ["Name", "Status", "Type"]
    assert len(result(noriba("job", "list", "--max-results", "1"))) == 1
    tagged = result(noriba("job", "list", "--tag", "colour=blue", "--query", "[].name"))
    assert tagged == ["cli-finished"]


def test_stream_again(finished: object, noriba: Noriba) -> None:
    done = noriba("job", "stream", "-n", "cli-finished")
    assert (done.returncode, done.stdout) == (0, "arguments: from-flag\n")


def test_download(finished: object, noriba: Noriba, tmp_path: Path) -> None:
    done = noriba("job", "download", "-n", "cli-finished", "--all", "-p", "all")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "all/artifacts/outputs/a.txt").read_text() == "artifact\n"
    assert (tmp_path / "all/artifacts/user_logs/std_log.txt").read_text() == "arguments: from-flag\n"
    assert (tmp_path / "all/named-outputs/result/f.txt").read_text() == "output\n"
    assert not list((tmp_path / "all").rglob(".*")), "no half-made files are left"

    assert noriba("job", "download", "-n", "cli-finished", "--output-name", "result").returncode == 0
    assert (tmp_path / "named-outputs/result/f.txt").read_text() == "output\n"
    assert not (tmp_path / "artifacts").exists()
    missing = noriba("job", "download", "-n", "cli-finished", "--output-name", "nope")
    assert missing.returncode == 1
    assert "has no output 'nope' to download. Its outputs: result." in missing.stderr


def test_update_archive_restore(finished: object, noriba: Noriba) -> None:
    updated = result(
        noriba("job", "update", "-n", "cli-finished", "--set", "tags.more=1", "description=told")
    )
    assert updated["tags"]["more"] == "1"
    assert updated["tags"]["kept"] == "yes"
    assert updated["description"] == "told"
    refused = noriba("job", "update", "-n", "cli-finished", "--set", "command=other")
    assert refused.returncode == 2
    assert "'command=other' can not be set on a job that exists" in refused.stderr

    def names(*flags: str) -> list[str]:
        return result(noriba("job", "list", "-a", *flags, "--query", "[].name"))  # type: ignore[no-any-return]

    assert noriba("job", "archive", "-n", "cli-finished").returncode == 0
    assert "cli-finished" not in names()
    assert "cli-finished" in names("--archived-only")
    assert "cli-finished" in names("--include-archived")
    assert noriba("job", "restore", "-n", "cli-finished").returncode == 0
    assert "cli-finished" in names()


def test_show_services(finished: object, noriba: Noriba) -> None:
    assert result(noriba("job", "show-services", "-n", "cli-finished")) == {}


def test_a_failing_job_and_deleting_it(noriba: Noriba, tmp_path: Path) -> None:
    write_job(tmp_path, command="echo before; exit 3")
    done = noriba("job", "create", "-f", "job.yml", "-n", "cli-failing", "--stream")
    assert done.returncode == 1
    assert done.stdout == "before\n"
    assert "noriba: The job cli-failing failed: " in done.stderr
    assert "3" in done.stderr.split("failed: ")[1]
    again = noriba("job", "stream", "-n", "cli-failing")
    assert (again.returncode, again.stdout) == (1, "before\n")

    declined = noriba("job", "delete", "-n", "cli-failing")
    assert declined.returncode == 1, "without an answer nothing is deleted"
    assert noriba("job", "show", "-n", "cli-failing").returncode == 0
    assert noriba("job", "delete", "-n", "cli-failing", "--yes").returncode == 0
    assert noriba("job", "show", "-n", "cli-failing").returncode == 1
    # The node that ran it takes the next job for another one, even of the same name.
    write_job(tmp_path, command="echo anew")
    anew = noriba("job", "create", "-f", "job.yml", "-n", "cli-failing", "--stream")
    assert (anew.returncode, anew.stdout) == (0, "anew\n")


@pytest.fixture
def running(server: ServerProcess, noriba: Noriba, tmp_path: Path) -> Iterator[str]:
    """A job that runs until it is stopped, after it has printed ``started``."""
    name = f"cli-{tmp_path.name}".replace("_", "-").lower()
    write_job(tmp_path, command="echo started; sleep 600")
    created = noriba("job", "create", "-f", "job.yml", "-n", name)
    assert created.returncode == 0, created.stderr
    yield name
    noriba("job", "cancel", "-n", name)


def _streaming(server: ServerProcess, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "noriba.cli.main", "job", "stream", "-n", name],
        env=clean_environment(NORIBA_HOME=str(server.home.path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_interrupting_a_stream_leaves_the_job(server: ServerProcess, noriba: Noriba, running: str) -> None:
    follower = _streaming(server, running)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "started\n"
    follower.send_signal(signal.SIGINT)
    out, told = follower.communicate(timeout=60)
    assert (follower.returncode, out) == (130, "")
    assert f"The job {running} goes on. Follow it again with: noriba job stream -n {running}" in told
    assert "Traceback" not in told
    assert result(noriba("job", "show", "-n", running, "--query", "status")) == "Running"


def test_cancel_ends_a_stream(server: ServerProcess, noriba: Noriba, running: str) -> None:
    follower = _streaming(server, running)
    assert follower.stdout is not None
    assert follower.stdout.readline() == "started\n"
    canceled = noriba("job", "cancel", "-n", running)
    assert canceled.returncode == 0, canceled.stderr
    # cancel waits for the end.
    assert result(noriba("job", "show", "-n", running, "--query", "status")) == "Canceled"
    _, told = follower.communicate(timeout=60)
    assert follower.returncode == 0
    assert told.rstrip().endswith("  Canceled")
    again = noriba("job", "cancel", "-n", running)
    assert again.returncode == 1
    assert "is over" in again.stderr


def test_a_stream_outlives_a_restart(new_server: ServerProcess, tmp_path: Path) -> None:
    """While the server is down the job goes on, and its followers wait."""
    new_server.start()
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    write_job(tmp_path, command=f"echo before; cat {gate}; echo after")
    home = new_server.home.path
    assert run_noriba("job", "create", "-f", "job.yml", "-n", "j", home=home, cwd=tmp_path).returncode == 0
    follower = _streaming(new_server, "j")
    assert follower.stdout is not None
    assert follower.stderr is not None
    told: list[str] = []
    heard_absence = threading.Event()

    def listen() -> None:
        assert follower.stderr is not None
        for line in follower.stderr:
            told.append(line)
            if "The job goes on; asking again" in line:
                heard_absence.set()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    assert follower.stdout.readline() == "before\n"
    new_server.stop()
    assert heard_absence.wait(60), told
    new_server.start()
    gate.write_text("through\n")
    rest = follower.stdout.read()
    assert follower.wait(timeout=120) == 0, told
    assert rest == "through\nafter\n"
    listener.join(timeout=10)
    assert told[-1].endswith("  Completed\n")


def test_refused_by_the_server(noriba: Noriba, tmp_path: Path) -> None:
    write_job(tmp_path)
    done = noriba(
        "job", "create", "-f", "job.yml", "--set", "inputs.d.type=uri_file", "inputs.d.path=azureml:nope:1"
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "the workspace has no data 'nope:1'" in done.stderr
    assert "code: AssetNotFound" in done.stderr


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["code=nofolder"], "job.yml can not be used: code: Can't find directory or file"),
        (["type=nonsense"], "job.yml can not be used: Unsupported job type: nonsense."),
        (["resources.instance_count=many"], "resources.instance_count: Not a valid integer."),
        (["comand=x"], "comand: Unknown field."),
    ],
)
def test_files_that_are_not_right(noriba: Noriba, tmp_path: Path, sets: list[str], says: str) -> None:
    write_job(tmp_path)
    done = noriba("job", "create", "-f", "job.yml", "--set", *sets)
    assert done.returncode == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_files_that_are_not_there(noriba: Noriba) -> None:
    done = noriba("job", "create", "-f", "nothing.yml")
    assert (done.returncode, done.stderr) == (1, "noriba: There is no file 'nothing.yml'.\n")


def test_validate(noriba: Noriba, tmp_path: Path) -> None:
    write_job(tmp_path)
    checked = result(noriba("job", "validate", "-f", "job.yml"))
    assert checked["result"] == "Succeeded"
    write_job(tmp_path, code="nofolder")
    refused = noriba("job", "validate", "-f", "job.yml")
    assert refused.returncode == 1
    assert "Can't find directory or file" in refused.stderr
