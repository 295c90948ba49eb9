"""Drives the real ZenML client: one JSON order a line on stdin, one JSON answer a line on stdout.

    real_zenml.py [PLACE...]      PLACE is a virtual environment with the libraries of a secrets store of ZenML's
"""
import glob
import json
import os
import sys
import time

# ZenML prints as it likes; answers go out on a descriptor of their own.
answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
# Behind what is installed: ZenML keeps its own versions of what both need.
sys.path += [folder for place in sys.argv[1:] for folder in glob.glob(os.path.join(place, "lib/python3*/site-packages"))]

from zenml.client import Client  # noqa: E402

client = Client()
client.zen_store  # makes the data base


def answer(result):
    answers.write(json.dumps({"result": result}) + "\n")


def get(name, private):
    try:
        return client.get_secret_by_name_and_private_status(name, private=private).secret_values
    except KeyError:
        return None


def exact(name):
    """The id: by name, ZenML takes a part of it for the whole."""
    return client.get_secret_by_name_and_private_status(name, private=False).id


def many(count, value):
    longest = 0.0

    def timed(call, *args, **kwargs):
        nonlocal longest
        began = time.monotonic()
        call(*args, **kwargs)
        longest = max(longest, time.monotonic() - began)

    for number in range(count):
        timed(client.create_secret, f"many_{number}", values={"value": value, "number": "0"})
    for number in range(count):
        timed(client.update_secret, exact(f"many_{number}"), add_or_update_values={"number": str(number)})
    for number in range(0, count, 2):
        timed(client.delete_secret, exact(f"many_{number}"))
    return round(longest * 1000)


answer("ready")
for line in sys.stdin:
    order = json.loads(line)
    name = order.get("name")
    try:
        match order["do"]:
            case "create":
                client.create_secret(name, values=order["values"], private=order.get("private", False))
                answer(True)
            case "update":
                client.update_secret(
                    name, add_or_update_values=order["values"] or None, remove_values=order["remove"] or None
                )
                answer(True)
            case "delete":
                client.delete_secret(name)
                answer(True)
            case "get":
                answer(get(name, order["private"]))
            case "many":
                answer(many(order["count"], order["value"]))
    except Exception as error:  # every failure is the scenario's to judge
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
