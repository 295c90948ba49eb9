"""Writes to AWS or to Vault what ZenML 0.43.1 writes there, with its own classes: secrets managers and the central store.

    ZENML_043_PYTHON zenml_043_writer.py FOLDER < REQUEST > ANSWERS

FOLDER is new and becomes ZenML's own: a copy of the fixture's data base, whose user and workspace own the store's secrets.
REQUEST is a JSON object of
    "store"     the central store's settings, as ZenML takes them from ZENML_SECRETS_STORE_*
    "orders"    a list, done in turn, each one of
        {"manager": "aws"|"vault", "id", "config", "do": "register"|"update"|"delete", "name", "schema", "values"}
        {"do": "create"|"update"|"delete", "name", "scope", "values"}
ANSWERS is a JSON list, for a created secret {"id", "deployment"} and otherwise null. AWS's client takes its address and
credentials from AWS's own variables, Vault's takes the certificate authority from REQUESTS_CA_BUNDLE.
"""

import json
import os
import shutil
import sys
from datetime import datetime
from pathlib import Path
from uuid import UUID

# ZenML logs to stdout.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
folder = Path(sys.argv[1])
request = json.load(sys.stdin)

FIXTURE = Path(__file__).parent.parent / "fixtures/zenml/db/zenml-0.43.1-plain.db"
(folder / "local_stores/default_zen_store").mkdir(parents=True)
shutil.copy(FIXTURE, folder / "local_stores/default_zen_store/zenml.db")
# Read when ZenML is imported.
os.environ["ZENML_CONFIG_PATH"] = str(folder)
os.environ["ZENML_ANALYTICS_OPT_IN"] = "false"
for key, value in request["store"].items():
    os.environ[f"ZENML_SECRETS_STORE_{key.upper()}"] = value

from zenml.client import Client  # noqa: E402
from zenml.enums import SecretScope, StackComponentType  # noqa: E402
from zenml.secret.secret_schema_class_registry import SecretSchemaClassRegistry  # noqa: E402


def manager_of(order):
    """A secrets manager as it stands in a stack, with the settings that were given when it was registered."""
    if order["manager"] == "aws":
        from zenml.integrations.aws.flavors.aws_secrets_manager_flavor import AWSSecretsManagerConfig as Config
        from zenml.integrations.aws.secrets_managers import AWSSecretsManager as Manager
    else:
        from zenml.integrations.vault.flavors.vault_secrets_manager_flavor import VaultSecretsManagerConfig as Config
        from zenml.integrations.vault.secrets_manager import VaultSecretsManager as Manager
    now = datetime.utcnow()
    return Manager(
        name="secrets_manager",
        id=UUID(order["id"]),
        config=Config(**order["config"]),
        flavor=order["manager"],
        type=StackComponentType.SECRETS_MANAGER,
        user=None,
        workspace=None,
        created=now,
        updated=now,
    )


def in_manager(order):
    manager = manager_of(order)
    if order["do"] == "delete":
        manager.delete_secret(order["name"])
        return None
    schema = SecretSchemaClassRegistry.get_class(order["schema"])
    secret = schema(name=order["name"], **order["values"])
    {"register": manager.register_secret, "update": manager.update_secret}[order["do"]](secret)
    return None


def in_store(order):
    client, name, scope = Client(), order["name"], SecretScope(order["scope"])
    if order["do"] == "create":
        secret = client.create_secret(name, order["values"], scope)
        return {"id": str(secret.id), "deployment": str(client.zen_store.get_store_info().id)}
    if order["do"] == "update":
        client.update_secret(name, scope, add_or_update_values=order["values"])
    else:
        client.delete_secret(name, scope)
    return None


json.dump([in_manager(order) if "manager" in order else in_store(order) for order in request["orders"]], answers)
answers.close()
