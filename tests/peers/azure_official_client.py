"""What Microsoft's own Python client does with a vault.

    azure_official_client.py URL CA check      shows that the vault behaves as the client expects
    azure_official_client.py URL CA write      writes secrets as ZenML did in its time: its secrets managers (up to 0.43), each
                                               scope, and its store up to 0.53; and as others do
    azure_official_client.py URL CA set NAME   writes one secret, whose value it reads
    azure_official_client.py URL CA token      prints a token as the Azure command line does

Prints `done` otherwise. The calls and tags of `write` are those of ZenML 0.43.1's `AzureSecretsManager` and `AzureSecretsStore`.
"""

import base64
import json
import sys
import time
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
    manager_without_scope(vault, "warehouse", {"user": "admin", "password": "p w=\n", "empty": "", "a.b": "dotted"})
    scoped = {"user": "admin", "password": "scoped", "zenml_schema_name": "arbitrary"}
    component, name = "5f2b0e52-7e4e-4f0b-9c5a-0d1f6a3f1c11", "warehouse"
    tags = {"zenml_secret_name": name, "zenml_component_name": "manager", "zenml_component_uuid": component, "zenml_secret_schema": "arbitrary"}
    for path, scope in [
        (f"zenml-global-{name}", {"zenml_scope": "global"}),
        (f"zenml-component-{component}-{name}", {"zenml_scope": "component"}),
        (f"zenml-namespace-team-a-{name}", {"zenml_scope": "namespace", "zenml_namespace": "team-a"}),
    ]:
        vault.set_secret(path, json.dumps({**scoped, "path": path}))
        vault.update_secret_properties(path, tags={**scope, **tags})
    store(vault, "warehouse", "workspace", {"user": "admin", "password": "public ключ"})
    store(vault, "warehouse", "user", {"user": "admin", "password": "private"})
    store(vault, "alone", "workspace", {})
    store(vault, "twice", "user", {"k": "one"})
    store(vault, "twice", "user", {"k": "another user's"})
    vault.set_secret("plain-object", json.dumps({"user": "u", "port": 5432, "nested": {"a": [1]}, "none": None}))
    vault.set_secret("plain-text", "hunter2\n")
    vault.set_secret("plain-disabled", "x", enabled=False)
    vault.set_secret("plain-expired", "old", expires_on=datetime.now(timezone.utc) - timedelta(days=1))
    vault.set_secret("plain-not-yet", "young", not_before=datetime.now(timezone.utc) + timedelta(days=1))
    vault.set_secret("plain-deleted", "x")
    vault.begin_delete_secret("plain-deleted").result()
    vault.set_secret("zenml-00000000-0000-0000-0000-000000000001", "no JSON", tags={
        "zenml": DEPLOYMENT, "zenml_secret_id": "00000000-0000-0000-0000-000000000001", "zenml_secret_name": "spoilt",
        "zenml_secret_scope": "workspace"})


DEPLOYMENT = "0a0a0a0a-1111-2222-3333-444444444444"


def manager_without_scope(vault, name, content):
    for key, value in content.items():
        encoded_key = base64.b64encode(f"{name}-{key}".encode()).hex()
        vault.set_secret(f"zenml-{encoded_key}", value)
        vault.update_secret_properties(
            f"zenml-{encoded_key}",
            tags={"zenml-group-key": name, "zenml-key-name": key, "zenml-schema-name": "arbitrary"},
        )


def store(vault, name, scope, values):
    identity, now = uuid.uuid4(), datetime.utcfromtimestamp(time.time()).isoformat()
    vault.set_secret(
        f"zenml-{identity}",
        json.dumps(values),
        content_type="application/json",
        tags={
            "zenml": DEPLOYMENT,
            "zenml_secret_id": str(identity),
            "zenml_secret_name": name,
            "zenml_secret_scope": scope,
            "zenml_secret_workspace": str(uuid.uuid4()),
            "zenml_secret_user": str(uuid.uuid4()),
            "zenml_secret_created": now,
            "zenml_secret_updated": now,
        },
    )


def token():
    given = login("right").get_token("https://vault.azure.net/.default")
    print(json.dumps({"accessToken": given.token, "expires_on": given.expires_on, "tokenType": "Bearer"}))
    sys.exit()


{"check": check, "write": write, "set": lambda: client().set_secret(sys.argv[4], sys.stdin.read()), "token": token}[what]()
print("done")
