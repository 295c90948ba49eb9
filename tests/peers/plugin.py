#!/usr/bin/env python3
"""A plug-in back-end in Python: the secrets of one JSON file.

    plugin.py FILE

The file holds {"secrets": [{"name", "scope", "id", "version", "values"}, ...]}. It is read anew for every request and
replaced at one stroke by a write. Each request is answered by a thread of its own, so answers come in any order.

For tests the file may also hold "denied" (a list of names), "down", "stalled" and "spoilt" (true or false).
"""

import json
import os
import sys
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

FILE = sys.argv[1]
PRINTING = threading.Lock()
WRITING = threading.Lock()


class Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, error_class, message, reason=None):
        super().__init__(message)
        self.error = {"class": error_class, "message": message}
        if reason:
            self.error["reason"] = reason


def load():
    with open(FILE, encoding="utf-8") as file:
        store = json.load(file)
    if store.get("down"):
        raise Refusal("transient", "the store does not answer")
    return store


def save(store):
    new = FILE + ".new"
    with open(new, "w", encoding="utf-8") as file:
        json.dump(store, file)
    os.replace(new, FILE)


def description(secret):
    shown = {key: secret[key] for key in ("name", "scope", "id", "version")}
    return {**shown, "keys": sorted(secret["values"])}


def find(store, name, scopes):
    """The secret of exactly this name in the first scope that has it."""
    for scope in scopes:
        for secret in store["secrets"]:
            if (secret["name"], secret["scope"]) == (name, scope):
                return secret
    raise Refusal("not_found", "no such secret")


def initialize(_params):
    methods = ["create", "update", "delete"]
    return {"protocol": 1, "name": "json-file", "version": "1.0", "methods": methods}


def list_all(_params):
    return {"secrets": [description(secret) for secret in load()["secrets"]]}


def describe(params):
    return description(find(load(), params["name"], params["scopes"]))


def fetch(params):
    store = load()
    secret = find(store, params["name"], params["scopes"])
    if secret["name"] in store.get("denied", []):
        raise Refusal("denied", "this account may not read it")
    if store.get("spoilt"):
        raise Refusal("transient", "values cannot be read")
    return {**description(secret), "values": secret["values"]}


def create(params):
    with WRITING:
        store = load()
        place = (params["name"], params["scope"])
        if place in [(secret["name"], secret["scope"]) for secret in store["secrets"]]:
            raise Refusal("invalid", "the name is taken", reason="exists")
        secret = {"name": params["name"], "scope": params["scope"], "id": str(uuid.uuid4()), "version": "1"}
        secret["values"] = params["values"]
        store["secrets"].append(secret)
        save(store)
        return description(secret)


def check_version(secret, params):
    if params.get("if_version", secret["version"]) != secret["version"]:
        raise Refusal("invalid", "it has changed since", reason="version_mismatch")


def update(params):
    with WRITING:
        store = load()
        secret = find(store, params["name"], [params["scope"]])
        check_version(secret, params)
        for key, value in params["values"].items():
            if value is not None:
                secret["values"][key] = value
            elif key in secret["values"]:
                del secret["values"][key]
            else:
                raise Refusal("invalid", "there is no such key", reason="key_not_found")
        secret["name"] = params.get("new_name", secret["name"])
        secret["scope"] = params.get("new_scope", secret["scope"])
        secret["version"] = str(int(secret["version"]) + 1)
        save(store)
        return description(secret)


def delete(params):
    with WRITING:
        store = load()
        secret = find(store, params["name"], [params["scope"]])
        check_version(secret, params)
        store["secrets"].remove(secret)
        save(store)
        return None


METHODS = {
    "initialize": initialize,
    "list": list_all,
    "describe": describe,
    "fetch": fetch,
    "create": create,
    "update": update,
    "delete": delete,
}


def is_stalled():
    try:
        with open(FILE, encoding="utf-8") as file:
            return json.load(file).get("stalled", False)
    except OSError:
        return False


def answer(request):
    reply = {"id": request["id"]}
    try:
        if request["method"] not in METHODS:
            raise Refusal("invalid", "there is no such method")
        while request["method"] != "initialize" and is_stalled():
            time.sleep(0.01)
        reply["result"] = METHODS[request["method"]](request["params"])
    except Refusal as refusal:
        reply["error"] = refusal.error
    except Exception as error:  # A fault in one request must not end the others. Only its type: a text may quote a value.
        print(f"{request['method']} failed: {type(error).__name__}", file=sys.stderr, flush=True)
        reply["error"] = {"class": "transient", "message": "an internal error"}
    # One write for one line: two threads must not mix theirs.
    with PRINTING:
        sys.stdout.write(json.dumps(reply, ensure_ascii=False) + "\n")
        sys.stdout.flush()


def main():
    # Whatever the locale says: the protocol is UTF-8, and a line ends with a line feed alone.
    sys.stdin.reconfigure(encoding="utf-8", newline="\n")
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    print("serving one JSON file", file=sys.stderr, flush=True)
    pool = ThreadPoolExecutor(max_workers=16)
    for line in sys.stdin:
        pool.submit(answer, json.loads(line))
    # The end of standard input is the end of the plug-in, even if a request still hangs.
    pool.shutdown(wait=False, cancel_futures=True)
    sys.stdout.flush()
    os._exit(0)


main()
