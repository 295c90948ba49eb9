"""The local secrets manager's side of its file, past the agent, with PyYAML as ZenML 0.43.1 uses it.

    local_yaml.py FILE show           prints all secrets, decoded, and their schemas as JSON
    local_yaml.py FILE register NAME  the pairs as a JSON object on stdin; empties the file and writes it, as ZenML does
    local_yaml.py FILE dump           prints the file as the dumper would write what is in it
"""
import base64
import json
import sys

import yaml

SCHEMA = "zenml_schema_name"

path, command, *rest = sys.argv[1:]
try:
    with open(path) as file:
        secrets = yaml.safe_load(file) or {}
except FileNotFoundError:
    secrets = {}

if command == "show":
    for values in secrets.values():
        for key, value in values.items():
            if key != SCHEMA:
                values[key] = base64.b64decode(value, validate=True).decode()
    json.dump(secrets, sys.stdout)
elif command == "register":
    values = {key: base64.b64encode(value.encode()).decode() for key, value in json.load(sys.stdin).items()}
    secrets[rest[0]] = {**values, SCHEMA: "arbitrary"}
    with open(path, "w") as file:
        file.write(yaml.dump(secrets))
elif command == "dump":
    sys.stdout.write(yaml.dump(secrets))
else:
    sys.exit(f"no such command: {command}")
