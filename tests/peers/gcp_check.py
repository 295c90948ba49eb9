"""The official Python client on the stand-in of Secret Manager: what it does must be what Google's own service does.

    gcp_check.py http://127.0.0.1:PORT     prints `passed`, or ends with what was wrong
"""
import sys

import requests
from google.api_core import exceptions
from google.cloud import secretmanager_v1 as sm
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import (
    SecretManagerServiceRestTransport,
)
from google.oauth2.credentials import Credentials

host = sys.argv[1].split("//")[1]


def client(token):
    credentials = Credentials(token)
    return sm.SecretManagerServiceClient(
        transport=SecretManagerServiceRestTransport(host=host, url_scheme="http", credentials=credentials)
    )


def fails(kind, call, **request):
    try:
        call(**request)
    except kind:
        return
    raise AssertionError(f"{call.__name__}({request}) should fail with {kind.__name__}")


gcp = client("token")
parent, secret = "projects/p", "projects/p/secrets/check"
automatic = {"automatic": {}}
made = gcp.create_secret(parent=parent, secret_id="check", secret=sm.Secret(replication=automatic, labels={"a": "b"}))
assert made.name == secret and made.etag and made.create_time
fails(exceptions.Conflict, gcp.create_secret, parent=parent, secret_id="check", secret=sm.Secret(replication=automatic))
fails(exceptions.BadRequest, gcp.create_secret, parent=parent, secret_id="a.b", secret=sm.Secret(replication=automatic))
upper = sm.Secret(replication=automatic, labels={"a": "Upper"})
fails(exceptions.BadRequest, gcp.create_secret, parent=parent, secret_id="other", secret=upper)
latest = secret + "/versions/latest"
fails(exceptions.NotFound, gcp.access_secret_version, name=latest)
assert gcp.add_secret_version(parent=secret, payload={"data": b"one"}).name.endswith("/versions/1")
data = b"two\x00\xff"
assert gcp.add_secret_version(parent=secret, payload={"data": data}).name.endswith("/versions/2")
fails(exceptions.BadRequest, gcp.add_secret_version, parent=secret, payload={"data": b"x" * 65537})
fails(exceptions.BadRequest, gcp.add_secret_version, parent=secret, payload={"data": b""})
fails(exceptions.BadRequest, gcp.add_secret_version, parent=secret, payload={"data": b"x", "data_crc32c": 1})
read = gcp.access_secret_version(name=latest)
assert read.name.endswith("/secrets/check/versions/2") and read.payload.data == data
assert gcp.access_secret_version(name=secret + "/versions/1").payload.data == b"one"
gcp.disable_secret_version(name=secret + "/versions/2")
fails(exceptions.BadRequest, gcp.access_secret_version, name=latest)
gcp.enable_secret_version(name=secret + "/versions/2")
assert gcp.access_secret_version(name=latest).payload.data == data
assert gcp.destroy_secret_version(name=secret + "/versions/1").destroy_time
states = [version.state.name for version in gcp.list_secret_versions(parent=secret)]
assert states == ["ENABLED", "DESTROYED"], states
gcp.update_secret(secret=sm.Secret(name=secret, labels={"c": "d"}), update_mask={"paths": ["labels"]})
assert dict(gcp.get_secret(name=secret).labels) == {"c": "d"}
for number in range(7):
    labelled = sm.Secret(replication=automatic, labels={"check-group": "x"})
    gcp.create_secret(parent=parent, secret_id=f"check-{number}", secret=labelled)
assert len(list(gcp.list_secrets(request={"parent": parent, "page_size": 3, "filter": "name:check-"}))) == 7
assert len(list(gcp.list_secrets(request={"parent": parent, "filter": "labels.check-group=x"}))) == 7
assert len(list(gcp.list_secrets(request={"parent": parent, "filter": "labels.c:* AND name:check"}))) == 1
fails(exceptions.BadRequest, gcp.list_secrets, request={"parent": parent, "filter": "no filter at all"})
fails(exceptions.NotFound, gcp.get_secret, name=parent + "/secrets/none")
gcp.delete_secret(name=secret)
fails(exceptions.NotFound, gcp.get_secret, name=secret)
assert requests.get(f"http://{host}/v1/{secret}", headers={"Authorization": "Bearer wrong"}).status_code == 401
fails(exceptions.Forbidden, client("powerless").get_secret, name=secret)
print("passed")
