"""Fills a new SQLite store with secrets in ZenML's own table: seed_store.py DATABASE COUNT.

Each secret is called secret-N and has one key, `password`, of 200 bytes. Values are invented and stored in clear (base64
of JSON), as ZenML does without an encryption key.
"""

import base64
import json
import sqlite3
import sys
import uuid

path, count = sys.argv[1], int(sys.argv[2])
moment = "2026-01-01 00:00:00.000000"
owner = uuid.uuid4().hex
store = sqlite3.connect(path)
store.executescript(
    """
    CREATE TABLE user (
        id CHAR(32) NOT NULL PRIMARY KEY, created DATETIME NOT NULL, updated DATETIME NOT NULL, name VARCHAR NOT NULL
    );
    CREATE TABLE secret (
        id CHAR(32) NOT NULL, created DATETIME NOT NULL, updated DATETIME NOT NULL, name VARCHAR NOT NULL,
        private BOOLEAN NOT NULL, internal BOOLEAN NOT NULL, "values" VARCHAR(16777215), user_id CHAR(32) NOT NULL,
        PRIMARY KEY (id),
        CONSTRAINT unique_secret_name_private_scope_user UNIQUE (name, private, user_id),
        CONSTRAINT fk_secret_user_id_user FOREIGN KEY(user_id) REFERENCES user (id) ON DELETE CASCADE
    );
    """
)
store.execute("INSERT INTO user VALUES (?, ?, ?, 'default')", (owner, moment, moment))
store.executemany(
    "INSERT INTO secret VALUES (?, ?, ?, ?, 0, 0, ?, ?)",
    (
        (
            uuid.uuid4().hex,
            moment,
            moment,
            f"secret-{number}",
            base64.b64encode(json.dumps({"password": f"{number:->200}"}).encode()),
            owner,
        )
        for number in range(count)
    ),
)
store.commit()
