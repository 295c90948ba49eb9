"""Writes secrets into AWS Secrets Manager with ZenML 0.98's own class, as its server does.

    ZENML_PYTHON aws_store.py BOTO3_SITE_PACKAGES < ORDERS

ORDERS is a JSON list of {"do": "store"|"update"|"delete", "id", "deployment", "values"}. Credentials, region and address
come from AWS's own variables. Run by ZenML's Python; boto3 comes from the folder that is named.
"""

import json
import os
import sys
from types import SimpleNamespace
from uuid import UUID

sys.path.append(sys.argv[1])

from zenml.zen_stores.secrets_stores.aws_secrets_store import (  # noqa: E402
    AWSSecretsStore,
    AWSSecretsStoreConfiguration,
)


def store_of(deployment: UUID) -> AWSSecretsStore:
    config = AWSSecretsStoreConfiguration(
        auth_method="secret-key",
        auth_config={
            "aws_access_key_id": os.environ["AWS_ACCESS_KEY_ID"],
            "aws_secret_access_key": os.environ["AWS_SECRET_ACCESS_KEY"],
            "region": os.environ["AWS_REGION"],
        },
    )
    # All that the class asks of the store above it is whose secrets these are.
    above = SimpleNamespace(get_store_info=lambda: SimpleNamespace(id=deployment))
    return AWSSecretsStore(config=config, zen_store=above)


def main() -> None:
    stores = {}
    for order in json.load(sys.stdin):
        deployment, secret = UUID(order["deployment"]), UUID(order["id"])
        if deployment not in stores:
            stores[deployment] = store_of(deployment)
        match order["do"]:
            case "store":
                stores[deployment].store_secret_values(secret, order["values"])
            case "update":
                stores[deployment].update_secret_values(secret, order["values"])
            case "delete":
                stores[deployment].delete_secret_values(secret)
            case other:
                raise SystemExit(f"unknown order {other}")


main()
