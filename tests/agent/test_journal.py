"""The journal: numbers without gaps, whatever is cut off or lost."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from noriba.agent.journal import Journal
from noriba.agent.protocol import Event, TaskPhase


def event(task: str) -> Event:
    return TaskPhase(seq=0, task_id=task, at=1.0, phase="running")


def names(journal: Journal) -> list[tuple[int, str]]:
    return [(e.seq, e.task_id) for e in journal.pending]


def test_events_survive_a_restart(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append([event("a"), event("b")])
    journal.append([event("c")])
    assert [e.seq for e in journal.batch(2)] == [1, 2]
    assert [e.task_id for e in journal.acknowledge(1)] == ["a"]
    journal.close()
    again = Journal(tmp_path / "journal")
    assert again.resume(1) != []
    assert names(again) == [(2, "b"), (3, "c")]
    again.append([event("d")])
    assert names(again)[-1] == (4, "d")


def test_a_torn_tail_is_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append([event("a"), event("b")])
    journal.close()
    data = (tmp_path / "journal").read_bytes()
    for cut in range(1, 12):
        (tmp_path / "journal").write_bytes(data[:-cut])
        torn = Journal(tmp_path / "journal")
        assert names(torn) == [(1, "a")]
        torn.append([event("c")])
        torn.close()
        assert names(Journal(tmp_path / "journal")) == [(1, "a"), (2, "c")]


def test_numbers_the_control_plane_has_seen_are_not_given_out_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append([event("new"), event("newer")])
    fresh = Journal(tmp_path / "lost")
    fresh.append([event("new"), event("newer")])
    assert fresh.resume(7) == []
    assert names(fresh) == [(8, "new"), (9, "newer")]
    fresh.append([event("last")])
    assert names(fresh)[-1] == (10, "last")
    fresh.close()
    assert names(Journal(tmp_path / "lost")) == [(8, "new"), (9, "newer"), (10, "last")]


def test_a_control_plane_that_was_set_back_gets_what_it_expects(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.append([event(str(i)) for i in range(5)])
    journal.acknowledge(3)
    journal.close()
    again = Journal(tmp_path / "journal")
    again.resume(3)
    again._rewrite()
    again.close()
    back = Journal(tmp_path / "journal")
    back.resume(1)
    assert names(back) == [(2, "3"), (3, "4")]


def test_an_acknowledged_journal_becomes_small(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for _ in range(40):
        journal.append([event("x" * 1000) for _ in range(10)])
        journal.acknowledge(journal.last)
    assert (tmp_path / "journal").stat().st_size < 300_000
    journal.close()
    again = Journal(tmp_path / "journal")
    assert again.last == 400
    again.resume(400)
    assert not again.pending


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["append", "ack", "reopen", "tear"]), max_size=25), st.randoms())
def test_no_event_is_lost_or_doubled(steps: list[str], random: object) -> None:
    """Against a model of the control plane: it takes events in order and counts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        journal = Journal(path)
        server: list[str] = []
        journal.resume(0)
        expected: list[str] = []
        for number, step in enumerate(steps):
            if step == "append":
                journal.append([event(f"e{number}")])
                expected.append(f"e{number}")
            elif step == "ack":
                for sent in journal.batch(2):
                    if sent.seq == len(server) + 1:
                        server.append(sent.task_id)
                journal.acknowledge(len(server))
            else:
                journal.close()
                if step == "tear":
                    path.write_bytes(path.read_bytes() + b"\x07\x00\x00")
                journal = Journal(path)
                journal.resume(len(server))
        while journal.pending:
            for sent in journal.batch(100):
                assert sent.seq == len(server) + 1
                server.append(sent.task_id)
            journal.acknowledge(len(server))
        assert server == expected
        journal.close()
