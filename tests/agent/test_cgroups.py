"""Which control groups are found, from the kernel's own words for several kinds of machines."""

from __future__ import annotations

from pathlib import Path

from noriba.agent import cgroups

V1 = """\
31 30 0:26 / {root}/memory rw,relatime - cgroup cgroup rw,memory
32 30 0:27 / {root}/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 30 0:28 / {root}/pids rw,relatime - cgroup cgroup rw,pids
34 30 0:29 / {root}/freezer rw,relatime - cgroup cgroup rw,freezer
35 30 0:30 / /proc rw - proc proc rw
"""
V2 = "29 23 0:25 / {root}/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def make(root: Path, *folders: str) -> None:
    for folder in folders:
        (root / folder).mkdir(parents=True)


def test_v1_groups_are_made_below_our_own(tmp_path: Path) -> None:
    make(tmp_path, "memory/user/me", "cpu,cpuacct/user/me", "pids", "freezer")
    membership = "4:memory:/user/me\n3:cpu,cpuacct:/user/me\n2:pids:/\n1:freezer:/\n0::/x\n"
    found = cgroups.detect(V1.format(root=tmp_path), membership, Path.is_dir)
    assert found.v1 == {
        "memory": tmp_path / "memory/user/me",
        "cpu": tmp_path / "cpu,cpuacct/user/me",
        "cpuacct": tmp_path / "cpu,cpuacct/user/me",
        "pids": tmp_path / "pids",
    }
    assert (found.kind, found.limits_memory, found.v2) == ("v1", True, None)
    assert not list(tmp_path.rglob("noriba-probe*"))


def test_v2_groups_are_made_where_controllers_can_be_given(tmp_path: Path) -> None:
    # Our own group holds processes and gives nothing; its parent, delegated to us, does.
    make(tmp_path, "unified/user.slice/me.service/session")
    (tmp_path / "unified/user.slice/me.service/cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "unified/user.slice/me.service/cgroup.subtree_control").write_text("cpu memory pids\n")
    found = cgroups.detect(V2.format(root=tmp_path), "0::/user.slice/me.service/session\n", Path.is_dir)
    assert found.v2 == tmp_path / "unified/user.slice/me.service"
    assert found.own_v2 == tmp_path / "unified/user.slice/me.service/session"
    assert found.v2_controllers == {"cpu", "memory", "pids"}
    assert (found.kind, found.limits_memory) == ("v2", True)


def test_v2_without_controllers_beside_v1_is_used_to_kill(tmp_path: Path) -> None:
    make(tmp_path, "memory", "cpu,cpuacct", "pids", "freezer", "unified")
    membership = "4:memory:/\n3:cpu,cpuacct:/\n2:pids:/\n0::/\n"
    found = cgroups.detect(V1.format(root=tmp_path) + V2.format(root=tmp_path), membership, Path.is_dir)
    assert (found.kind, found.v2, found.v2_controllers) == ("hybrid", tmp_path / "unified", frozenset())


def test_a_group_seen_from_inside_a_container(tmp_path: Path) -> None:
    # The mount shows the hierarchy from the container's group on; what we are told of is above it.
    make(tmp_path, "memory/job")
    mountinfo = f"31 30 0:26 /docker/abc {tmp_path}/memory rw - cgroup cgroup rw,memory\n"
    found = cgroups.detect(mountinfo, "4:memory:/docker/abc/job\n", Path.is_dir)
    assert found.v1 == {"memory": tmp_path / "memory/job"}


def test_nothing_to_be_had(tmp_path: Path) -> None:
    assert cgroups.detect("", "").kind == "none"
    found = cgroups.detect(V2.format(root=tmp_path / "missing"), "0::/\n", Path.is_dir)
    assert (found.kind, found.limits_memory) == ("none", False)
    group = cgroups.TaskCgroup(found, "noriba/n/t")
    assert group.create(cgroups.Limits(pids=5)) != []
    assert (group.pids(), group.memory_bytes(), group.cpu_s(), group.oom_kills()) == ([], None, None, 0)
    group.join()
    assert not group.kill()
    group.remove()


def test_a_v2_group_is_read_and_limited(tmp_path: Path) -> None:
    found = cgroups.Cgroups(v2=tmp_path, v2_controllers=frozenset({"cpu", "memory", "pids"}), v2_kill=True)
    make(tmp_path, "noriba/n/t")
    place = tmp_path / "noriba/n/t"
    group = cgroups.TaskCgroup(found, "noriba/n/t")
    assert group.create(cgroups.Limits(memory_bytes=1 << 30, cpus=1.5, pids=100)) == []
    assert (place / "memory.max").read_text() == str(1 << 30)
    assert (place / "memory.swap.max").read_text() == "0"
    assert (place / "cpu.max").read_text() == "150000 100000"
    assert (place / "pids.max").read_text() == "100"
    (place / "memory.current").write_text("5000\n")
    (place / "memory.stat").write_text("anon 3000\ninactive_file 1000\n")
    (place / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    (place / "memory.peak").write_text("9000\n")
    (place / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (place / "cgroup.procs").write_text("12\n13\n")
    assert (group.memory_bytes(), group.memory_peak_bytes(), group.oom_kills()) == (4000, 9000, 2)
    assert (group.cpu_s(), group.pids()) == (2.5, [12, 13])
    assert group.kill()
    assert (place / "cgroup.kill").read_text() == "1"
