"""Writes to a cloud or to Vault what ZenML 0.43.1 writes there, with its own classes: its secrets managers and its central
store.

    ZENML_043_PYTHON zenml_043_writer.py FOLDER < REQUEST > ANSWERS

FOLDER is new and becomes ZenML's own: a copy of the fixture's data base, whose user and workspace own the store's
secrets. REQUEST is a JSON object of
    "store"     the central store's settings, as ZenML takes them from ZENML_SECRETS_STORE_*
    "orders"    a list, done in turn, each one of
        {"manager": "aws"|"azure"|"gcp"|"vault", "id", "config", "do": "register"|"update"|"delete",
         "name", "schema", "values"}
        {"do": "create"|"update"|"delete", "name", "scope", "values"}
ANSWERS is a JSON list, for a created secret {"id", "deployment"} and otherwise null. AWS's client takes its address and
credentials from AWS's own variables; Vault's and Azure's take the certificate authority from REQUESTS_CA_BUNDLE. To
Google's and Azure's clients ZenML gives no address: where CLOUD_URL is set, its classes find official clients that go
there and have a login there. Nothing else of theirs is replaced.
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
from zenml.integrations.seldon import secret_schemas  # noqa: E402, F401 (more schemas, some with truth values)
from zenml.secret.secret_schema_class_registry import SecretSchemaClassRegistry  # noqa: E402


def lead_google_to(url):
    from google.cloud import secretmanager
    from google.cloud.secretmanager_v1.services.secret_manager_service import transports
    from google.oauth2.credentials import Credentials
    from zenml.integrations.gcp.secrets_manager.gcp_secrets_manager import GCPSecretsManager
    from zenml.zen_stores.secrets_stores import gcp_secrets_store

    transport = transports.SecretManagerServiceRestTransport(
        host=url.split("//")[1], url_scheme="http", credentials=Credentials("writer")
    )
    client = secretmanager.SecretManagerServiceClient(transport=transport)
    GCPSecretsManager.CLIENT = client
    gcp_secrets_store.SecretManagerServiceClient = lambda: client


def lead_azure_to(url):
    from azure.identity import ClientSecretCredential
    from azure.keyvault.secrets import SecretClient
    from zenml.integrations.azure.secrets_managers.azure_secrets_manager import AzureSecretsManager
    from zenml.zen_stores.secrets_stores import azure_secrets_store

    login = ClientSecretCredential("tenant", "client", "right", authority=url, disable_instance_discovery=True)
    client = SecretClient(url, login, verify_challenge_resource=False)
    AzureSecretsManager.CLIENT = client
    azure_secrets_store.DefaultAzureCredential = lambda: login
    azure_secrets_store.SecretClient = lambda vault_url, credential: client


if "CLOUD_URL" in os.environ:
    {"azure": lead_azure_to, "gcp": lead_google_to}[request["store"]["type"]](os.environ["CLOUD_URL"])


def manager_of(order):
    """A secrets manager as it stands in a stack, with the settings that were given when it was registered."""
    if order["manager"] == "aws":
        from zenml.integrations.aws.flavors.aws_secrets_manager_flavor import AWSSecretsManagerConfig as Config
        from zenml.integrations.aws.secrets_managers import AWSSecretsManager as Manager
    elif order["manager"] == "azure":
        from zenml.integrations.azure.flavors.azure_secrets_manager_flavor import AzureSecretsManagerConfig as Config
        from zenml.integrations.azure.secrets_managers import AzureSecretsManager as Manager
    elif order["manager"] == "gcp":
        from zenml.integrations.gcp.flavors.gcp_secrets_manager_flavor import GCPSecretsManagerConfig as Config
        from zenml.integrations.gcp.secrets_manager import GCPSecretsManager as Manager
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
