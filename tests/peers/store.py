"""ZenML's side of a store, past the agent: writes a secret as ZenML does, or holds the data base locked.

    store.py DATABASE plant NAME     the pairs as a JSON object on stdin
    store.py DATABASE remove NAME
    store.py DATABASE replace NAME   gives each of its keys the next number, again and again until it is killed
    store.py DATABASE lock           prints `locked`, then holds an exclusive lock until it is killed
"""
import base64
import itertools
import json
import signal
import sqlite3
import sys
import time
import uuid
from datetime import datetime, timezone

database, command, *rest = sys.argv[1:]
connection = sqlite3.connect(database, isolation_level=None, timeout=30)

if command == "plant":
    values = json.dumps(json.load(sys.stdin))
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
    (user,) = connection.execute("SELECT id FROM user WHERE name = 'default'").fetchone()
    row = {"id": uuid.uuid4().hex, "created": now, "updated": now, "name": rest[0], "user_id": user}
    row["values"] = base64.b64encode(values.encode())
    if "scope" in [column[1] for column in connection.execute("PRAGMA table_info(secret)")]:
        (workspace,) = connection.execute("SELECT id FROM workspace WHERE name = 'default'").fetchone()
        row |= {"scope": "workspace", "workspace_id": workspace}
    else:
        row |= {"private": 0, "internal": 0}
    columns = ", ".join(f'"{column}"' for column in row)
    places = ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO secret ({columns}) VALUES ({places})", list(row.values()))
elif command == "remove":
    connection.execute("DELETE FROM secret WHERE name = ?", rest)
elif command == "replace":
    for number in itertools.count(1):
        (stored,) = connection.execute('SELECT "values" FROM secret WHERE name = ?', rest).fetchone()
        values = json.dumps(dict.fromkeys(json.loads(base64.b64decode(stored)), str(number)))
        now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%S.%f")
        connection.execute(
            'UPDATE secret SET "values" = ?, updated = ? WHERE name = ?',
            (base64.b64encode(values.encode()), now, rest[0]),
        )
        time.sleep(0.002)
elif command == "lock":
    connection.execute("BEGIN EXCLUSIVE")
    print("locked", flush=True)
    signal.pause()
else:
    sys.exit(__doc__)
