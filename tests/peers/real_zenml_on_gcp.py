"""The real ZenML client with its values in the stand-in of Secret Manager: real_zenml.py but for the way to Google's client.

    real_zenml_on_gcp.py PLACE URL      PLACE is the virtual environment of Google's client; URL is the stand-in's
"""
import glob
import os
import runpy
import sys

place, url = sys.argv[1:]
sys.path += glob.glob(os.path.join(place, "lib/python3*/site-packages"))

from google.cloud import secretmanager_v1 as sm  # noqa: E402
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (  # noqa: E402
    SecretManagerServiceRestTransport,
)
from google.oauth2.credentials import Credentials  # noqa: E402
from zenml.zen_stores.secrets_stores.gcp_secrets_store import GCPSecretsStore  # noqa: E402

transport = SecretManagerServiceRestTransport(
    host=url.split("//")[1], url_scheme="http", credentials=Credentials("writer")
)
client = sm.SecretManagerServiceClient(transport=transport)
# ZenML's connector knows no endpoint but Google's.
GCPSecretsStore._get_client = lambda self: client

del sys.argv[1:]
runpy.run_path(os.path.join(os.path.dirname(os.path.abspath(__file__)), "real_zenml.py"), run_name="__main__")
