"""How a process ended, said so that its owner knows what to do. Pure."""

from __future__ import annotations

import signal

_SIGNAL_MEANINGS = {
    signal.SIGSEGV: "it touched memory that is not its own; most often a fault in a native library",
    signal.SIGBUS: "it lost memory-mapped data; most often shared memory (shm_size) or a disk ran full",
    signal.SIGFPE: "an arithmetic fault in native code",
    signal.SIGILL: "an instruction this CPU does not have: a library was built for another CPU",
    signal.SIGABRT: "it aborted itself; the lines above in the log say why",
    signal.SIGKILL: "something killed it from outside",
    signal.SIGTERM: "something asked it to end",
    signal.SIGINT: "something interrupted it",
    signal.SIGPIPE: "it wrote to a pipe that nobody reads",
    signal.SIGXCPU: "it used up its CPU time limit",
    signal.SIGXFSZ: "it wrote a larger file than its limit allows",
}

_EXIT_MEANINGS = {
    126: "the command was found but may not be executed (is it a script without execute permission?)",
    127: "command not found: install it in the job's environment or correct its name",
}


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; ``signal 64`` style words for numbers without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"


def signal_in_exit_code(exit_code: int) -> int | None:
    """The signal that a shell reports as ``128 + n``, if the code is one of these."""
    number = exit_code - 128
    if 0 < number < 65 and number in {s.value for s in signal.Signals}:
        return number
    return None


def gib(size_bytes: float) -> str:
    """``3.9`` style, in GiB; two digits where one would read 0.0."""
    value = size_bytes / 2**30
    return f"{value:.1f}" if value >= 0.1 else f"{value:.2f}"


def human_bytes(size_bytes: float) -> str:
    """``12.3 MiB`` style."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def out_of_memory(used_bytes: int, limit_bytes: int | None, size: str) -> str:
    """Why the kernel killed, and what to change. ``limit_bytes`` is None if the whole machine ran out."""
    advice = "choose a larger instance_type, or let the code use less memory (smaller batches, fewer workers)"
    if limit_bytes is None:
        return (
            f"the machine under the node ran out of memory (the job used {gib(used_bytes)} GiB); "
            f"run fewer jobs at a time on it, {advice}"
        )
    return f"the node ran out of memory: used {gib(used_bytes)} of {gib(limit_bytes)} GiB ({size}); {advice}"


def exited(exit_code: int) -> str:
    """A sentence for an exit code other than 0."""
    number = signal_in_exit_code(exit_code)
    if number is not None:
        meaning = _SIGNAL_MEANINGS.get(signal.Signals(number), "")
        tail = f": {meaning}" if meaning else ""
        return f"exited with code {exit_code}, that is a process of it was ended by signal {number} ({signal_name(number)}){tail}"
    meaning = _EXIT_MEANINGS.get(exit_code, "")
    return f"exited with code {exit_code}" + (f": {meaning}" if meaning else "")


def killed(number: int, reason: str = "") -> str:
    """A sentence for a death by signal; ``reason`` replaces the general meaning where the cause is known."""
    known = number in {s.value for s in signal.Signals}
    meaning = reason or (_SIGNAL_MEANINGS.get(signal.Signals(number), "") if known else "")
    return f"killed by signal {number} ({signal_name(number)})" + (f": {meaning}" if meaning else "")


def duration(seconds: float) -> str:
    """``1 h 5 min``, ``12.3 s``, ``8 ms`` style."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    if minutes < 120:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{minutes // 60} h {minutes % 60} min"
