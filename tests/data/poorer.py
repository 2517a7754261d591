"""Takes away what Windows lacks, one thing after the other: no such machine was at hand."""

import _socket
import os
import select
import signal
import sys

for name in ("resource", "syslog", "fcntl", "pwd", "grp", "termios", "pty", "tty", "readline", "_posixshmem"):
    sys.modules[name] = None
LACKING = {
    os: "chown fchmod fchown fork forkpty getegid geteuid getgid getgroups getpgid getpgrp getresuid getsid getuid"
    " killpg lchown mkfifo nice openpty posix_spawn pread pwrite sched_getaffinity sched_yield setegid setgroups"
    " setsid setuid statvfs sync umask uname wait wait3 wait4 waitid",
    select: "devpoll epoll kqueue poll",
    signal: "alarm getitimer pause pthread_kill pthread_sigmask setitimer siginterrupt sigpending sigtimedwait sigwait",
    _socket: "AF_UNIX AF_NETLINK AF_PACKET CMSG_LEN MSG_DONTWAIT SO_REUSEPORT sethostname socketpair",
}
for module, names in LACKING.items():
    for name in names.split():
        if hasattr(module, name):
            delattr(module, name)
for name in dir(signal):
    if name.startswith("SIG") and name not in "SIGABRT SIGFPE SIGILL SIGINT SIGSEGV SIGTERM SIG_DFL SIG_IGN".split():
        delattr(signal, name)
