"""Finds out in which order the functions of a shipped program are first called: order.py KEYSIDE KEYSIDE_EXEC.

Both are programs with their symbols (link/order.sh builds them). Writes `keyside.order` and `keyside-exec.order` beside this
file. Linux on x86-64. A function counts when it is entered: each one begins with a breakpoint, which is taken away when it is
met. Runs on invented secrets and talks to nothing but itself.
"""

import ctypes
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

HERE = Path(__file__).parent
BREAKPOINT = 0xCC
TRACEME, PEEKUSER, POKEUSER, CONT, DETACH, SETOPTIONS = 0, 3, 6, 7, 17, 0x4200
TRACE_CLONE, TRACE_EXEC, EXIT_KILL = 0x8, 0x10, 0x100000
ALL_THREADS = 0x40000000
# Where the instruction pointer lies among the registers.
RIP = 16 * 8

# A word for each that wants one; nothing of the caller's.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "WORD": "word", "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "word"}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def functions(program):
    """The name of each function in the program's text, by its address there."""
    sections = subprocess.run(["readelf", "--section-headers", "--wide", program], capture_output=True, text=True, check=True)
    begin, _, size = (int(number, 16) for number in re.search(r" \.text +PROGBITS +(\w+) (\w+) (\w+)", sections.stdout).groups())
    symbols = subprocess.run(["nm", "--defined-only", program], capture_output=True, text=True, check=True)
    found = {}
    for line in symbols.stdout.splitlines():
        address, kind, name = line.split(None, 2)
        if kind in "tTwW" and begin <= int(address, 16) < begin + size:
            found.setdefault(int(address, 16), name)
    if not found:
        sys.exit(f"order.py: {program} has no symbols; link/order.sh builds one that has")
    return found


def called(program, arguments, meanwhile=None):
    """Runs the program until it ends or becomes another; the names of its functions in the order of their first call.

    `meanwhile` runs beside it, is given its process id, and may end it.
    """
    names = functions(program)
    process = os.fork()
    if process == 0:
        libc.ptrace(TRACEME, 0, None, None)
        os.execve(program, [program, *arguments], ENVIRONMENT)
    os.waitpid(process, 0)
    libc.ptrace(SETOPTIONS, process, None, TRACE_CLONE | TRACE_EXEC | EXIT_KILL)
    with open(f"/proc/{process}/maps") as maps:
        base = next(int(line.split("-")[0], 16) for line in maps if line.rstrip().endswith(program))
    # By descriptor: the agent lets nobody open its memory later on.
    memory = os.open(f"/proc/{process}/mem", os.O_RDWR)
    first, last = min(names), max(names)
    text = bytearray(os.pread(memory, last - first + 1, base + first))
    own = {address: text[address - first] for address in names}
    for address in names:
        text[address - first] = BREAKPOINT
    os.pwrite(memory, bytes(text), base + first)

    failed = []

    def watched():
        try:
            meanwhile(process)
        except Exception as error:
            failed.append(error)

    beside = threading.Thread(target=watched) if meanwhile else None
    if beside:
        beside.start()
    order = {}
    libc.ptrace(CONT, process, None, None)
    while True:
        thread, status = os.waitpid(-1, ALL_THREADS)
        if os.WIFEXITED(status) and thread == process:
            failed.append(ChildProcessError(f"{program} ended by itself, with {os.WEXITSTATUS(status)}"))
            break
        if os.WIFEXITED(status) or os.WIFSIGNALED(status):
            if thread == process:
                break
            continue
        signal_number, event = os.WSTOPSIG(status), status >> 16
        if event == 4:
            # It has become the command.
            libc.ptrace(DETACH, thread, None, None)
            os.waitpid(process, 0)
            break
        if event or signal_number == signal.SIGSTOP:
            signal_number = 0
        elif signal_number == signal.SIGTRAP:
            address = libc.ptrace(PEEKUSER, thread, RIP, None) - 1 - base
            # Two threads may meet one breakpoint; the second finds it gone.
            if address in own:
                order.setdefault(names[address])
                os.pwrite(memory, bytes([own[address]]), base + address)
                libc.ptrace(POKEUSER, thread, RIP, base + address)
                signal_number = 0
        libc.ptrace(CONT, thread, None, signal_number)
    os.close(memory)
    if beside:
        beside.join()
    if failed:
        raise failed[0]
    return list(order)


class Agent(http.client.HTTPConnection):
    """A connection to an agent, which may still have to start."""

    def __init__(self, path):
        super().__init__("localhost", timeout=60)
        self.path = str(path)

    def connect(self):
        while True:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(60)
            try:
                return self.sock.connect(self.path)
            except (FileNotFoundError, ConnectionRefusedError):
                self.sock.close()

    def get(self, path, expected):
        self.request("GET", path)
        reply = self.getresponse()
        body = reply.read()
        if reply.status != expected:
            raise ValueError(f"{path}: {reply.status} {body.decode()}")


def until_read(path, reads):
    """What an agent is asked, after which it is killed: its end is no part of what is wanted."""

    def meanwhile(process):
        try:
            agent = Agent(path)
            for what, expected in reads:
                agent.get(what, expected)
        finally:
            os.kill(process, signal.SIGKILL)

    return meanwhile


def main():
    keyside, wrapper = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="keyside-order.") as room:
        room = Path(room)
        subprocess.run([sys.executable, HERE.parent / "bench/seed_store.py", room / "store.db", "10"], check=True)
        store = f'type = "zenml-sql"\nurl = "sqlite:///{room}/store.db"\n'
        (room / "store.toml").write_text(f'[agent]\nsocket = "{room}/agent.sock"\n[backend.store]\n{store}')
        # With a key of its own an account asks nobody for a token.
        key = subprocess.run(["openssl", "genpkey", "-quiet", "-algorithm", "RSA"], capture_output=True, text=True, check=True)
        account = {"type": "service_account", "project_id": "p", "client_email": "a@b", "private_key_id": "1", "private_key": key.stdout}
        (room / "gcp.json").write_text(json.dumps(account))
        # What each kind sets up before its first call, and what follows when nobody listens.
        others = {
            "zenml-server": 'url = "http://127.0.0.1:9"\napi_key_env = "WORD"\n',
            "aws": 'region = "eu-west-1"\nendpoint_url = "http://127.0.0.1:9"\nlayout = "plain"\n',
            "azure": 'vault_url = "https://127.0.0.1:9"\ntenant_id = "t"\nclient_id = "c"\nclient_secret_env = "WORD"\n'
            'authority = "https://127.0.0.1:9"\nlayout = "plain"\n',
            "gcp": f'project = "p"\nendpoint = "http://127.0.0.1:9"\ncredentials_file = "{room}/gcp.json"\nlayout = "plain"\n',
            "vault": 'url = "http://127.0.0.1:9"\nauth = "token"\ntoken_env = "WORD"\nlayout = "plain"\n',
        }
        tables = [f'[backend.{kind}]\ntype = "{kind}"\nrequired = false\n{keys}' for kind, keys in others.items()]
        names = ", ".join(f'"{kind}"' for kind in others)
        head = f'[agent]\nsocket = "{room}/others.sock"\nprecedence = [{names}]\n'
        (room / "others.toml").write_text(head + "".join(tables))

        word = "/v1/secrets/secret-0/password"
        order = called(
            keyside,
            ["--config", f"{room}/store.toml", "agent"],
            until_read(room / "agent.sock", [("/v1/health", 200), (word, 200), (word, 200)]),
        )
        more = called(
            keyside,
            ["--config", f"{room}/others.toml", "agent"],
            until_read(room / "others.sock", [("/v1/health", 200), *((f"{word}?backend={kind}", 503) for kind in others)]),
        )
        keep("keyside", list(dict.fromkeys(order + more)))

        agent = subprocess.Popen([keyside, "--config", room / "store.toml", "agent"], env=ENVIRONMENT)
        try:
            Agent(room / "agent.sock").get(word, 200)
            reference = "PASSWORD={{secret-0.password}}"
            keep("keyside-exec", called(wrapper, ["--socket", f"{room}/agent.sock", "--env", reference, "--", "/bin/true"]))
        finally:
            agent.terminate()
            agent.wait()


def keep(program, order):
    (HERE / f"{program}.order").write_text("\n".join(order) + "\n")
    print(f"{program}: {len(order):,} functions", file=sys.stderr)


if __name__ == "__main__":
    main()
