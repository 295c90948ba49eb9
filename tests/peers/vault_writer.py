"""Writes to Vault what ZenML writes there, with its own code: one JSON order a line, one JSON answer a line.

    vault_writer.py PLACE URL TOKEN      PLACE is what install-openbao.sh printed: hvac is taken from there

The server's certificate authority stands in REQUESTS_CA_BUNDLE.
"""
import glob
import json
import os
import sys
import types
import uuid

answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)
place, url, token = sys.argv[1:4]
# Behind what is installed: ZenML keeps its own versions of what both need.
sys.path += glob.glob(os.path.join(place, "lib/python3*/site-packages"))

import hvac  # noqa: E402


def store(order):
    """ZenML's own secrets store, for a deployment of this id."""
    from zenml.zen_stores.secrets_stores.hashicorp_secrets_store import (
        HashiCorpVaultSecretsStore,
        HashiCorpVaultSecretsStoreConfiguration,
    )

    info = types.SimpleNamespace(id=uuid.UUID(order["deployment"]))
    owner = types.SimpleNamespace(get_store_info=lambda: info)
    config = HashiCorpVaultSecretsStoreConfiguration(
        vault_addr=url, vault_token=token, mount_point=order.get("mount"), max_versions=order.get("max_versions", 1)
    )
    return HashiCorpVaultSecretsStore(zen_store=owner, config=config)


def put(order):
    """What ZenML's secrets manager for Vault calls (0.43)."""
    client = hvac.Client(url=url, token=token)
    client.secrets.kv.v2.create_or_update_secret(
        path=order["path"], mount_point=order["mount"], secret=order["values"]
    )


for line in sys.stdin:
    order = json.loads(line)
    try:
        match order["do"]:
            case "create":
                store(order).store_secret_values(uuid.UUID(order["id"]), order["values"])
            case "update":
                store(order).update_secret_values(uuid.UUID(order["id"]), order["values"])
            case "delete":
                store(order).delete_secret_values(uuid.UUID(order["id"]))
            case "put":
                put(order)
        answers.write(json.dumps({"result": True}) + "\n")
    except Exception as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
