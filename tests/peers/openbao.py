"""Runs a real OpenBao for a test: raft storage, TLS, one unseal key. Ends it when stdin ends.

    openbao.py PLACE DIRECTORY      PLACE is what install-openbao.sh printed; DIRECTORY is empty and the test's own

Prints one JSON line when the server is unsealed: {"url", "ca", "token", "unseal_key", "pid"}.
"""
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request

place, directory = sys.argv[1:3]
authority, certificate, key = (os.path.join(directory, name) for name in ("ca.crt", "tls.crt", "tls.key"))
NEW_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stderr=subprocess.DEVNULL)


authority_key = os.path.join(directory, "ca.key")
openssl("req", "-x509", *NEW_KEY, "-keyout", authority_key, "-out", authority, "-subj", "/CN=Keyside test authority")
openssl(
    *("req", "-x509", *NEW_KEY, "-keyout", key, "-out", certificate, "-subj", "/CN=localhost"),
    *("-CA", authority, "-CAkey", authority_key, "-addext", "basicConstraints=critical,CA:FALSE"),
    *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
)
context = ssl.create_default_context(cafile=authority)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def call(url, method, path, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/v1/{path}", data=data, method=method)
    with urllib.request.urlopen(request, timeout=30, context=context) as reply:
        return json.load(reply)


def attempt(number):
    """Starts a server; another one may take the port in between."""
    port = free_port()
    url = f"https://127.0.0.1:{port}"
    data = os.path.join(directory, f"data-{number}")
    os.mkdir(data)
    configuration = os.path.join(directory, f"bao-{number}.json")
    with open(configuration, "w") as file:
        listener = {"address": f"127.0.0.1:{port}", "tls_cert_file": certificate, "tls_key_file": key}
        storage = {"raft": {"path": data, "node_id": "n1", "performance_multiplier": "1"}}
        cluster = f"https://127.0.0.1:{free_port()}"
        json.dump({"storage": storage, "listener": {"tcp": listener}, "api_addr": url, "cluster_addr": cluster}, file)
    with open(os.path.join(directory, "server.log"), "a") as log:
        command = [os.path.join(place, "bao"), "server", f"-config={configuration}"]
        server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    for _ in range(300):
        if server.poll() is not None:
            return None
        try:
            call(url, "GET", "sys/seal-status")
            return server, url
        except OSError:
            time.sleep(0.1)
    server.kill()
    return None


def healthy(url):
    try:
        call(url, "GET", "sys/health")
        return True
    except OSError:
        return False


server, url = next(started for started in map(attempt, range(5)) if started)
try:
    # Whoever ends this program ends the server, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    keys = call(url, "PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
    unseal_key = keys["keys"][0]
    call(url, "PUT", "sys/unseal", {"key": unseal_key})
    while not healthy(url):
        time.sleep(0.1)
    line = {"url": url, "ca": authority, "token": keys["root_token"], "unseal_key": unseal_key, "pid": server.pid}
    print(json.dumps(line), flush=True)
    sys.stdin.read()
finally:
    server.kill()
    server.wait()
