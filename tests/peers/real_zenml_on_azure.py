"""The real ZenML client with its values in the fake vault: real_zenml.py but for address and login of Microsoft's client.

    real_zenml_on_azure.py PLACE URL CA      PLACE is the virtual environment of Microsoft's client; URL is the vault's
"""
import glob
import os
import runpy
import sys
from unittest.mock import MagicMock

place, url, ca = sys.argv[1:]
sys.path += glob.glob(os.path.join(place, "lib/python3*/site-packages"))
# The service connector imports clients of other services of Azure, which nothing here calls.
for name in ("mgmt", "mgmt.containerregistry", "mgmt.containerservice", "mgmt.resource", "mgmt.storage", "storage", "storage.blob"):
    sys.modules[f"azure.{name}"] = MagicMock()

from azure.identity import ClientSecretCredential  # noqa: E402
from azure.keyvault.secrets import SecretClient  # noqa: E402
from zenml.zen_stores.secrets_stores.azure_secrets_store import AzureSecretsStore  # noqa: E402

credential = ClientSecretCredential(
    "tenant", "client", "right", authority=url, disable_instance_discovery=True, connection_verify=ca
)
client = SecretClient(url, credential, verify_challenge_resource=False, connection_verify=ca)
AzureSecretsStore._get_client = lambda self: client

del sys.argv[1:]
runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "real_zenml.py"), run_name="__main__")
