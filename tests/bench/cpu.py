"""The CPU time of other processes, and the name of the processor."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable
from pathlib import Path

CPUCLOCK_SCHED = 2  # linux/posix-timers.h: the clock of a process that counts what all its threads have run


def cpu_seconds(pids: Iterable[int]) -> float | None:
    """Return the user and system time that the processes `pids` have used so far, None where no system says it.

    All threads count, those that have ended too. Linux has a clock for each process (clock_getcpuclockid(3)), which
    counts nanoseconds; /proc/PID/stat only has ticks of 10 ms.
    """
    try:
        return sum(time.clock_gettime(~pid << 3 | CPUCLOCK_SCHED) for pid in pids)
    except (AttributeError, OSError, OverflowError):
        pass
    try:
        return sum(_ticks(pid) for pid in pids) / os.sysconf("SC_CLK_TCK")
    except (AttributeError, OSError):
        return None


def _ticks(pid: int) -> int:
    """Return utime and stime of the process `pid` (proc(5))."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])


def processor() -> str:
    """Return the model of the processor, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
