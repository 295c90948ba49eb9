"""Times a cold check of the agent's beside AWS's own client: check_aws.py ENDPOINT SOCKET ROUNDS, run by moto's Python.

Writes 200 secrets of five keys each below `many/`, and prints a table of what was measured.
"""

import http.client
import json
import socket
import statistics
import sys
import time

import boto3
from botocore.config import Config

SECRETS, KEYS = 200, ["user", "password", "host", "port", "database"]
PATIENCE = 60


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Agent:
    """One kept connection to the agent."""

    def __init__(self, path):
        self.connection = UnixConnection(path)

    def post(self, target, body):
        headers = {"Content-Type": "application/json"}
        self.connection.request("POST", target, json.dumps(body), headers)
        reply = self.connection.getresponse()
        text = reply.read()
        if reply.status != 200:
            raise SystemExit(f"check_aws.py: {target}: {reply.status} {text.decode(errors='replace')}")
        return json.loads(text)


def main():
    endpoint, path, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # As a program written with care would have it: no retries that would hide a slow call, one kept connection.
    config = Config(retries={"max_attempts": 1}, parameter_validation=False)
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    aws = boto3.client("secretsmanager", region_name="eu-central-1", endpoint_url=endpoint, config=config, **keys)
    eventually(lambda: aws.list_secrets(MaxResults=1))
    names = [f"s{number:03}" for number in range(SECRETS)]
    for name in names:
        aws.create_secret(Name=f"many/{name}", SecretString=json.dumps({key: f"{name}-{key}" for key in KEYS}))
    references = [f"{{{{{name}.{key}}}}}" for name in names for key in KEYS]
    agent = eventually(lambda: agent_at(path))

    def check():
        agent.post("/v1/purge", {})
        took, reply = timed(lambda: agent.post("/v1/check", {"level": "SECRET_AND_KEY_EXISTS", "references": references}))
        statuses = {result["status"] for result in reply["results"]}
        if statuses != {"ok"} or len(reply["results"]) != len(references):
            raise SystemExit(f"check_aws.py: {len(reply['results'])} results, {statuses}")
        calls.append(reply["backend_calls"])
        return took

    def one_after_another(names):
        return timed(lambda: [aws.get_secret_value(SecretId=f"many/{name}") for name in names])[0]

    calls, rows = [], []
    # Connections are open and both programs warm, then what takes turns is timed.
    check(), one_after_another(names)
    calls.clear()
    for _ in range(rounds):
        by_reference = one_after_another([name for name in names for _ in KEYS])
        rows.append((check(), by_reference, one_after_another(names)))

    checks, by_reference, by_secret = zip(*rows)
    print(f"\nrounds: {rounds}; calls to AWS for one check: {min(calls)} to {max(calls)} (bar: 10)\n")
    print("| what | median | ratio of the check to it: median (least to greatest) | bar |")
    print("| --- | ---: | ---: | ---: |")
    print(f"| a cold check of {len(references):,} references to {SECRETS} secrets | {ms(checks)} | | |")
    print(f"| {len(references):,} GetSecretValue, one after another | {ms(by_reference)} | {ratio(checks, by_reference)} | <= 0.1x |")
    print(f"| {SECRETS} GetSecretValue, one after another | {ms(by_secret)} | {ratio(checks, by_secret)} | |")


def agent_at(path):
    agent = Agent(path)
    agent.post("/v1/purge", {})
    return agent


def eventually(attempt):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return attempt()
        except Exception:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def timed(call):
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


def ms(seconds):
    return f"{statistics.median(seconds) * 1e3:,.1f} ms"


def ratio(checks, floors):
    """Taken within each round, so that what drifts moves both sides of it."""
    ratios = sorted(check / floor for check, floor in zip(checks, floors))
    return f"{statistics.median(ratios):.3f}x ({ratios[0]:.3f}x to {ratios[-1]:.3f}x)"


main()
