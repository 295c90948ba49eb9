"""What Microsoft's own Python client does with a vault.

    azure_official_client.py URL CA check      shows that the vault behaves as the client expects
    azure_official_client.py URL CA write      writes secrets as others than ZenML do; and in the layout of its store up
                                               to 0.53 what one user of ZenML cannot make
    azure_official_client.py URL CA set NAME   writes one secret, whose value it reads
    azure_official_client.py URL CA token      prints a token as the Azure command line does

Prints `done` otherwise.
"""

import json
import sys
import uuid
from datetime import datetime, timedelta, timezone

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient

url, ca, what = sys.argv[1:4]


def login(secret):
    return ClientSecretCredential(
        "tenant", "client", secret, authority=url, disable_instance_discovery=True, connection_verify=ca, retry_total=0
    )


def client(secret="right"):
    return SecretClient(url, login(secret), verify_challenge_resource=False, connection_verify=ca, retry_total=0)


def fails(error, call, words=""):
    try:
        call()
    except error as failure:
        assert words in str(failure), failure
    else:
        raise AssertionError(f"no {error.__name__}")


def check():
    vault = client()
    first = vault.set_secret("a", "v1", tags={"zenml": "1"})
    assert vault.set_secret("a", "v2", tags={"zenml": "2"}).properties.tags == {"zenml": "2"}
    assert vault.get_secret("a").value == "v2" and vault.get_secret("A").value == "v2"
    assert vault.get_secret("a", first.properties.version).value == "v1"
    assert len(list(vault.list_properties_of_secret_versions("a"))) == 2
    fails(ResourceNotFoundError, lambda: vault.get_secret("missing"), "SecretNotFound")
    fails(HttpResponseError, lambda: vault.set_secret("a_b", "x"), "BadParameter")
    fails(HttpResponseError, lambda: vault.set_secret("large", "x" * 25601), "BadParameter")
    for number in range(60):
        vault.set_secret(f"page{number}", "x")
    assert len(list(vault.list_properties_of_secrets())) == 61
    assert all(one.tags is not None for one in vault.list_properties_of_secrets())
    vault.update_secret_properties("a", enabled=False)
    fails(HttpResponseError, lambda: vault.get_secret("a"), "disabled")
    vault.update_secret_properties("a", enabled=True, expires_on=datetime.now(timezone.utc) - timedelta(days=1))
    assert vault.get_secret("a").value == "v2"
    deleted = vault.begin_delete_secret("a").result()
    assert deleted.recovery_id
    fails(ResourceNotFoundError, lambda: vault.get_secret("a"))
    fails(ResourceExistsError, lambda: vault.set_secret("a", "x"), "recoverable")
    vault.begin_recover_deleted_secret("a").result()
    assert vault.get_secret("a").value == "v2"
    fails(ClientAuthenticationError, lambda: client("wrong").get_secret("a"), "AADSTS7000215")


def write():
    vault = client()
    store(vault, "twice", json.dumps({"k": "one"}))
    store(vault, "twice", json.dumps({"k": "another user's"}))
    store(vault, "spoilt", "no JSON")
    vault.set_secret("plain-object", json.dumps({"user": "u", "port": 5432, "nested": {"a": [1]}, "none": None}))
    vault.set_secret("plain-text", "hunter2\n")
    vault.set_secret("plain-disabled", "x", enabled=False)
    vault.set_secret("plain-expired", "old", expires_on=datetime.now(timezone.utc) - timedelta(days=1))
    vault.set_secret("plain-not-yet", "young", not_before=datetime.now(timezone.utc) + timedelta(days=1))
    vault.set_secret("plain-deleted", "x")
    vault.begin_delete_secret("plain-deleted").result()


DEPLOYMENT = "0a0a0a0a-1111-2222-3333-444444444444"


def store(vault, name, value):
    identity, user = str(uuid.uuid4()), str(uuid.uuid4())
    tags = {"zenml": DEPLOYMENT, "zenml_secret_id": identity, "zenml_secret_name": name, "zenml_secret_scope": "user"}
    vault.set_secret(f"zenml-{identity}", value, tags={**tags, "zenml_secret_user": user})


def token():
    given = login("right").get_token("https://vault.azure.net/.default")
    print(json.dumps({"accessToken": given.token, "expires_on": given.expires_on, "tokenType": "Bearer"}))
    sys.exit()


{"check": check, "write": write, "set": lambda: client().set_secret(sys.argv[4], sys.stdin.read()), "token": token}[what]()
print("done")
