"""Tasks from arrival to outcome, with a real agent, shim and processes."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from noriba.agent import processes
from noriba.agent.protocol import TaskEnvironment, TaskInput, TaskSamples, TaskWarning
from tests.agent.conftest import know_environment, wait_until

STD = "user_logs/std_log.txt"


def test_runs_a_command_and_ships_its_log(node: Any) -> None:
    end = node.run("echo hello; echo oops >&2; printf 'no newline'")
    assert (end.outcome, end.exit_code, end.code) == ("completed", 0, "")
    assert node.control_plane.log("job-1.0") == b"hello\noops\nno newline"
    assert node.control_plane.phases(node.name, "job-1.0") == [
        "environment", "data", "starting", "running", "finalizing",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("command", "code", "exit_code", "signal_name", "words"),
    [
        ("exit 3", "UserProcessFailed", 3, None, "exited with code 3"),
        ("no-such-program", "UserProcessFailed", 127, None, "command not found"),
        ("kill -9 $$", "UserProcessKilled", None, "SIGKILL", "killed by signal 9 (SIGKILL)"),
        ("kill -SEGV $$", "UserProcessKilled", None, "SIGSEGV", "fault in a native library"),
        ("bash -c 'kill -SEGV $$'; exit $?", "UserProcessFailed", 139, None, "signal 11 (SIGSEGV)"),
    ],
)
def test_says_how_a_process_ended(
    node: Any, command: str, code: str, exit_code: int | None, signal_name: str | None, words: str
) -> None:
    end = node.run(command)
    assert (end.outcome, end.code, end.exit_code, end.signal) == ("failed", code, exit_code, signal_name)
    assert words in end.message
    assert end.user_error


def test_a_command_runs_as_bash_runs_it(node: Any) -> None:
    end = node.run("false | true && [[ a == a ]] && echo {1..3} && x=(1 2) && echo ${x[1]}")
    assert end.outcome == "completed"
    assert node.control_plane.log("job-1.0") == b"1 2 3\n2\n"


def test_large_binary_and_endless_lines_arrive_as_they_are(node: Any) -> None:
    python = (
        "import os, sys\n"
        "line = b'x' * 1_000_000\n"
        "for i in range(5): os.write(1, line); os.write(1, bytes(range(256)))\n"
        "os.write(1, b'\\n' + b'y' * 3_000_001)\n"
    )
    end = node.run(f'python -c "{python}"')
    assert end.outcome == "completed"
    expected = (b"x" * 1_000_000 + bytes(range(256))) * 5 + b"\n" + b"y" * 3_000_001
    assert node.control_plane.log("job-1.0") == expected


def test_lines_are_seen_while_the_task_runs(node: Any) -> None:
    task = node.submit("echo first; read < $HOME/go; echo second")
    home = node.folder(task) / "home"
    wait_until(home.is_dir)
    os.mkfifo(home / "go")
    node.control_plane.wait(lambda: node.control_plane.log(task) == b"first\n" or None)
    (home / "go").write_text("\n")
    assert node.control_plane.exited(node.name, task).outcome == "completed"
    assert node.control_plane.log(task) == b"first\nsecond\n"


def test_log_files_of_the_platform_tell_what_it_did(node: Any) -> None:
    node.run("true")
    log = node.control_plane.log("job-1.0", "system_logs/lifecycler/node-0.log").decode()
    assert "the size Standard_DS3_v2: 4 vCPU, 14 GiB is emulated" in log
    assert "environment tests: ready on this node" in log
    assert "outcome: completed" in log
    assert b"nothing had to be built" in node.control_plane.log(
        "job-1.0", "azureml-logs/20_image_build_log.txt"
    )


def test_variables_of_a_job(make_node: Any) -> None:
    node = make_node().start(LC_ALL="C.UTF-8", SECRET_OF_THE_NODE="hush")
    spec = node.spec(
        "python -c 'import os, json; print(json.dumps(dict(os.environ)))'",
        environment_variables={"AZUREML_RUN_ID": "job-1", "FROM_PLATFORM": "p", "BOTH": "platform"},
        user_environment_variables={
            "BOTH": "user", "AZUREML_RUN_ID": "forged", "EXPR": "got ${{inputs.n}}", "PATH": "/bin",
        },
        inputs={"n": TaskInput(type="literal", value="3")},
    )  # fmt: skip
    node.control_plane.submit(node.name, spec)
    assert node.control_plane.exited(node.name, spec.id).outcome == "completed"
    seen = json.loads(node.control_plane.log(spec.id))
    folder = node.folder(spec.id)
    assert seen["FROM_PLATFORM"] == "p"
    assert seen["BOTH"] == "user"
    assert seen["AZUREML_RUN_ID"] == "job-1"
    assert seen["EXPR"] == "got 3"
    assert seen["AZUREML_PARAMETER_n"] == seen["AZURE_ML_INPUT_n"] == "3"
    assert seen["PATH"].split(":")[-1] == "/bin"
    assert seen["PATH"].split(":")[0] == f"{seen['VIRTUAL_ENV']}/bin" == str(folder / "environment" / "bin")
    assert seen["HOME"] == str(folder / "home")
    assert seen["TMPDIR"] == str(folder / "tmp")
    assert seen["PWD"] == seen["AZUREML_CR_EXECUTION_WORKING_DIR_PATH"] == str(folder / "code")
    assert seen["AZUREML_NODE_COUNT"] == "1"
    assert seen["AZ_BATCHAI_NODE_LIST"] == "127.0.0.1"
    assert seen["PYTHONUNBUFFERED"] == "1"
    assert seen["LC_ALL"] == "C.UTF-8"
    assert "OMP_NUM_THREADS" not in seen
    assert "SECRET_OF_THE_NODE" not in seen
    assert not [value for value in seen.values() if "node-token" in value]
    assert os.path.getsize(folder / "home") >= 0
    bundle = seen["REQUESTS_CA_BUNDLE"]
    assert seen["SSL_CERT_FILE"] == seen["CURL_CA_BUNDLE"] == bundle
    assert "BEGIN CERTIFICATE" in Path(bundle).read_text()


def test_a_command_that_does_not_fit_the_job_is_refused_in_words(node: Any) -> None:
    end = node.run("echo ${{inputs.nope}}", inputs={"a": TaskInput(type="literal", value="1")})
    assert (end.outcome, end.code) == ("failed", "CommandInvalid")
    assert "no input 'nope' was given (given: a)" in end.message


def test_nothing_is_left_behind(node: Any) -> None:
    task = node.submit(
        "setsid sleep 1000 & (trap '' TERM HUP; setsid sleep 1001 &) ; "
        "python -c 'import os,time\nif os.fork()==0:\n os.setsid()\n if os.fork()==0: time.sleep(1000)' & "
        "sleep 0.3; echo done"
    )
    end = node.control_plane.exited(node.name, task)
    assert end.outcome == "completed"
    assert node.marked() == []


def test_stop_ends_stubborn_processes_after_the_grace_period(node: Any) -> None:
    task = node.submit(
        "trap 'echo asked' TERM; (trap '' TERM; setsid sleep 1000 &) ; echo up; while :; do sleep 0.1; done",
        grace_s=1.0,
    )
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    begun = time.monotonic()
    node.control_plane.cancel(node.name, task)
    end = node.control_plane.exited(node.name, task)
    assert 0.9 < time.monotonic() - begun < 5.0
    assert (end.outcome, end.message) == ("stopped", "canceled by the user")
    assert b"asked" in node.control_plane.log(task)
    assert node.marked() == []


def test_stop_lets_a_well_behaved_process_finish(node: Any) -> None:
    task = node.submit(
        "python -c 'import signal,sys,time\n"
        'def f(*a): time.sleep(0.5); open("outputs/checkpoint", "w").write("saved"); sys.exit(0)\n'
        'signal.signal(signal.SIGTERM, f); print("up"); time.sleep(100)\'',
        grace_s=20.0,
    )
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    begun = time.monotonic()
    node.control_plane.cancel(node.name, task)
    assert node.control_plane.exited(node.name, task).outcome == "stopped"
    assert time.monotonic() - begun < 10.0
    assert node.blobs.text("ExperimentRun/dcid.job-1/outputs/checkpoint") == "saved"


def test_a_task_told_to_stop_before_it_ran_never_runs(node: Any) -> None:
    end = node.run("touch $HOME/ran", desired="stop", stop_reason="too late")
    assert (end.outcome, end.message) == ("stopped", "too late")
    assert "running" not in node.control_plane.phases(node.name, "job-1.0")


def test_the_timeout_is_kept(node: Any) -> None:
    end = node.run("sleep 100", timeout_s=0.5, grace_s=0.5)
    assert (end.outcome, end.code) == ("failed", "TimedOut")
    assert "longer than its limit of 500 ms" in end.message
    assert node.marked() == []


def test_a_quick_task_right_before_its_timeout_completes(node: Any) -> None:
    assert node.run("true", timeout_s=5.0).outcome == "completed"


def test_use_is_sampled(node: Any) -> None:
    task = node.submit(
        "python -c 'import time; x = bytearray(80 << 20); e = time.time() + 2.5\nwhile time.time() < e: pass'"
    )
    assert node.control_plane.exited(node.name, task).outcome == "completed"
    samples = [
        sample
        for event in node.control_plane.events(node.name, task)
        if isinstance(event, TaskSamples)
        for sample in event.samples
    ]
    assert len(samples) >= 2
    assert max(sample.memory_bytes for sample in samples) > 80 << 20
    assert 20 < max(sample.cpu_percent for sample in samples) < 150
    assert all(sample.disk_used_bytes >= 0 for sample in samples)


def test_released_ends_everything_and_cleans_up(node: Any) -> None:
    task = node.submit("trap '' TERM; echo up; sleep 1000")
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    node.control_plane.release(node.name)
    assert node.process.wait(20) == 0
    assert node.marked() == []
    assert list(node.work_dir.iterdir()) == []


def test_forgotten_tasks_leave_nothing(node: Any) -> None:
    node.run("mkdir -p a/b; chmod 0 a; ln -s / root")
    node.control_plane.forget(node.name, "job-1.0")
    wait_until(lambda: not node.folder("job-1.0").exists())
    wait_until(lambda: not list((node.work_dir / "trash").iterdir()))
    assert node.run("true").outcome == "completed"
    wait_until(lambda: node.control_plane.nodes[node.name].held in ([], ["job-2.0"]))


def test_several_tasks_run_beside_each_other(node: Any) -> None:
    tasks = [node.submit(f"sleep 0.2; echo {i}") for i in range(8)]
    for i, task in enumerate(tasks):
        assert node.control_plane.exited(node.name, task).outcome == "completed"
        assert node.control_plane.log(task) == f"{i}\n".encode()


def test_odd_task_ids_are_safe(node: Any) -> None:
    spec = msgspec.structs.replace(node.spec("echo $PWD"), id="../../evil/\u00e9 id")
    node.control_plane.submit(node.name, spec)
    assert node.control_plane.exited(node.name, spec.id).outcome == "completed"
    place = node.control_plane.log(spec.id).decode().strip()
    assert place.startswith(str(node.work_dir / "tasks") + "/x-")


def test_a_log_that_outruns_the_disk_pauses_the_task(make_node: Any) -> None:
    node = make_node().start("--log-disk-bytes", str(24 << 20))
    task = node.submit(
        "echo up; for i in {1..100}; do head -c 1000000 /dev/zero; sleep 0.03; done; echo; echo end"
    )
    node.control_plane.wait(lambda: b"up" in node.control_plane.log(task))
    node.control_plane.refuse_with = 503
    log = node.folder(task) / "logs" / STD
    notes = node.folder(task) / "shim.notes"
    wait_until(lambda: notes.exists() and "paused the job" in notes.read_text(), 20.0)
    held = os.stat(log).st_size
    assert held < 100_000_000
    node.control_plane.refuse_with = 0
    assert node.control_plane.exited(node.name, task, 60.0).outcome == "completed"
    assert node.control_plane.log(task) == b"up\n" + bytes(100_000_000) + b"\nend\n"
    assert os.stat(log).st_blocks * 512 < 24 << 20
    system = node.control_plane.log(task, "system_logs/lifecycler/node-0.log")
    assert b"paused the job" in system
    assert b"the job goes on" in system


def test_a_name_of_a_user_that_hides_a_log_is_not_followed(node: Any) -> None:
    end = node.run("ln -s /etc/hostname $AZUREML_LOGDIRECTORY_PATH/user_logs/mine.txt; echo x")
    assert end.outcome == "completed"
    assert "user_logs/mine.txt" not in node.control_plane.log_files("job-1.0")


def test_warnings_of_the_environment_reach_the_job(make_node: Any) -> None:
    node = make_node()
    asked = TaskEnvironment(image="python:3.8")
    know_environment(node._environments, asked, warnings=["Python 3.8 is near, not there"])
    node.start()
    node.run("true", environment=asked)
    warnings = [e for e in node.control_plane.events(node.name, "job-1.0") if isinstance(e, TaskWarning)]
    assert [w.message for w in warnings] == ["Python 3.8 is near, not there"]


def test_what_a_job_installs_is_its_own(node: Any) -> None:
    node.run(
        'python -c \'import sys, site; open(site.getsitepackages()[0] + "/mine.py", "w").write("x = 1")\'; '
        "python -c 'import mine, msgspec, sys; print(mine.x, sys.prefix)'"
    )
    own = node.folder("job-1.0") / "environment"
    assert node.control_plane.log("job-1.0").decode() == f"1 {own}\n"
    end = node.run("python -c 'import mine'")
    assert end.exit_code == 1
    # A program of the environment runs with the task's interpreter, and so sees what the task installed.
    node.run("head -2 $(command -v pytest); pytest --version && python -c 'import sys; print(sys.prefix)'")
    log = node.control_plane.log("job-3.0").decode()
    assert "NORIBA_ENVIRONMENT_PYTHON" in log
    assert "pytest 8" in log or "pytest 9" in log


def test_processes_are_their_own_sessions_and_killable_targets(node: Any) -> None:
    task = node.submit("cat /proc/self/oom_score_adj; ps -o sid= -p $$; echo $$; sleep 100")
    node.control_plane.wait(lambda: node.control_plane.log(task).count(b"\n") == 3)
    score, session, pid = node.control_plane.log(task).split()
    assert int(score) >= 500
    assert session == pid
    shim = node.shim(task)
    assert Path(f"/proc/{shim.pid}/oom_score_adj").read_text().strip() == "0"
    assert os.getsid(shim.pid) == shim.pid
    assert processes.is_alive(shim.pid, shim.ticks)
    os.kill(int(pid), signal.SIGTERM)
    assert node.control_plane.exited(node.name, task).signal == "SIGTERM"


def test_an_isolation_that_is_not_to_be_had_is_never_left_out(make_node: Any) -> None:
    node = make_node().start("--isolation", "sandbox")
    end = node.run("true")
    assert (end.outcome, end.code, end.user_error) == ("failed", "IsolationUnavailable", False)
    assert "running" not in node.control_plane.phases(node.name, "job-1.0")
