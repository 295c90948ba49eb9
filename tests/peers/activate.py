"""Starts a program as a supervisor with socket activation would: NAMES KIND=PATH... -- PROGRAM [ARG...]

KIND is stream, backlog (a stream with a client in its queue), bound (not listening), datagram, tcp or file. NAMES is
what LISTEN_FDNAMES is to say, `-` for nothing. LISTEN_PID is our own process's, which the program takes the place of,
unless OTHER_PID is set.
"""

import fcntl
import os
import socket
import sys

names, *rest = sys.argv[1:]
split = rest.index("--")
kinds, command = rest[:split], rest[split + 1 :]
held = []
for kind, path in (kind.split("=", 1) for kind in kinds):
    if kind == "file":
        opened = open(path, "rb")
    elif kind == "tcp":
        opened = socket.socket(socket.AF_INET)
        opened.bind(("127.0.0.1", 0))
        opened.listen()
    else:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "datagram" else socket.SOCK_STREAM)
        opened.bind(path)
        os.chmod(path, 0o640)
        if kind in ("stream", "backlog"):
            opened.listen(16)
    # Out of the way of the numbers that they are to have.
    held.append(fcntl.fcntl(opened.fileno(), fcntl.F_DUPFD_CLOEXEC, 100))
for number, descriptor in enumerate(held, 3):
    os.dup2(descriptor, number, inheritable=True)
os.environ["LISTEN_FDS"] = str(len(held))
os.environ["LISTEN_PID"] = str(os.getppid() if "OTHER_PID" in os.environ else os.getpid())
if names != "-":
    os.environ["LISTEN_FDNAMES"] = names
os.execv(command[0], command)
