"""Writes secrets into the stand-in of Secret Manager; with ZenML's own class where there is one, else in its layout.

    gcp_store.py http://127.0.0.1:PORT     takes orders, one JSON object a line; answers each with a line

    {"do": "stored", "id", "deployment", "values"}             ZenML 0.98's GCPSecretsStore; writes again if it is there
    {"do": "unstored", "id", "deployment"}                     likewise, deletes
    {"do": "put", "id", "labels", "data": base64 or null}      the official client; null: no version
    {"do": "remove", "id"} {"do": "disable", "id"} {"do": "destroy", "id"}
"""
import base64
import json
import sys
from types import SimpleNamespace
from uuid import UUID

# What the libraries print must not get between the answers.
answers, sys.stdout = sys.stdout, sys.stderr

from google.api_core import exceptions
from google.cloud import secretmanager_v1 as sm
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceRestTransport,
)
from google.oauth2.credentials import Credentials

transport = SecretManagerServiceRestTransport(
    host=sys.argv[1].split("//")[1], url_scheme="http", credentials=Credentials("writer")
)
client = sm.SecretManagerServiceClient(transport=transport)
PARENT = "projects/p"


def store(deployment):
    """ZenML's own class with another way to its client: the connector knows no endpoint but Google's."""
    from zenml.zen_stores.secrets_stores.gcp_secrets_store import (
        GCPSecretsStore,
        GCPSecretsStoreConfiguration,
    )

    class Store(GCPSecretsStore):
        def _get_client(self):
            return client

    owner = SimpleNamespace(get_store_info=lambda: SimpleNamespace(id=UUID(deployment)))
    config = GCPSecretsStoreConfiguration(auth_method="implicit", auth_config={"project_id": "p"})
    return Store(zen_store=owner, config=config)


def stored(id, deployment, values):
    zenml = store(deployment)
    try:
        zenml.get_secret_values(UUID(id))
    except KeyError:
        zenml.store_secret_values(UUID(id), values)
    else:
        zenml.update_secret_values(UUID(id), values)
    assert zenml.get_secret_values(UUID(id)) == values


def unstored(id, deployment):
    store(deployment).delete_secret_values(UUID(id))


def put(id, labels, data):
    name = f"{PARENT}/secrets/{id}"
    try:
        secret = sm.Secret(replication={"automatic": {}}, labels=labels)
        client.create_secret(parent=PARENT, secret_id=id, secret=secret)
    except exceptions.Conflict:
        mask = {"paths": ["labels"]}
        client.update_secret(secret=sm.Secret(name=name, labels=labels), update_mask=mask)
    if data is not None:
        client.add_secret_version(parent=name, payload={"data": base64.b64decode(data)})


def remove(id):
    client.delete_secret(name=f"{PARENT}/secrets/{id}")


def newest(id):
    return next(iter(client.list_secret_versions(parent=f"{PARENT}/secrets/{id}"))).name


def disable(id):
    client.disable_secret_version(name=newest(id))


def destroy(id):
    client.destroy_secret_version(name=newest(id))


print("ready", file=answers, flush=True)
for line in sys.stdin:
    order = json.loads(line)
    try:
        globals()[order.pop("do")](**order)
        print("done", file=answers, flush=True)
    except Exception as error:  # every failure is the test's to judge
        print(f"{type(error).__name__}: {error}".replace("\n", " "), file=answers, flush=True)
