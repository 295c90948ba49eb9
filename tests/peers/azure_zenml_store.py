"""ZenML's own Azure secrets store (0.98), at work on a vault.

    azure_zenml_store.py URL CA SITE_PACKAGES      SITE_PACKAGES has Microsoft's client; the Python is ZenML's

Stores the values of two secrets, changes those of the first, deletes the second, and prints a JSON object: the ids of both
and of the deployment. Only the address and the login of the client are not ZenML's own.
"""

import json
import sys
import types
import uuid
from unittest.mock import MagicMock

url, ca, site_packages = sys.argv[1:4]
sys.path.append(site_packages)
# The service connector imports clients of other services of Azure, which nothing here calls.
for name in ("mgmt", "mgmt.containerregistry", "mgmt.containerservice", "mgmt.resource", "mgmt.storage", "storage", "storage.blob"):
    sys.modules[f"azure.{name}"] = MagicMock()

from azure.identity import ClientSecretCredential  # noqa: E402
from azure.keyvault.secrets import SecretClient  # noqa: E402
from zenml.zen_stores.secrets_stores.azure_secrets_store import AzureSecretsStore, AzureSecretsStoreConfiguration  # noqa: E402


class Store(AzureSecretsStore):
    def _get_client(self):
        credential = ClientSecretCredential(
            "tenant", "client", "right", authority=url, disable_instance_discovery=True, connection_verify=ca
        )
        return SecretClient(url, credential, verify_challenge_resource=False, connection_verify=ca)


deployment = uuid.uuid4()
owner = types.SimpleNamespace(get_store_info=lambda: types.SimpleNamespace(id=deployment), get_deployment_id=lambda: deployment)
config = AzureSecretsStoreConfiguration(key_vault_name="unused", auth_method="service-principal", auth_config={})
store = Store(zen_store=owner, config=config)
kept, gone = uuid.uuid4(), uuid.uuid4()
store.store_secret_values(kept, {"password": "first"})
store.update_secret_values(kept, {"password": "naïve 🔐", "empty": ""})
store.store_secret_values(gone, {"password": "gone"})
store.delete_secret_values(gone)
print(json.dumps({"kept": str(kept), "gone": str(gone), "deployment": str(deployment)}))
