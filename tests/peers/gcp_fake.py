"""Google's Secret Manager and its ways to log in, as far as the tests go: on Google's own message types.

    gcp_fake.py     prints its port on stdout, serves 127.0.0.1 over http, and ends with its standard input

Routes and messages are those of the official client (google-cloud-secret-manager), which passes gcp_check.py on this.
Beside the API it serves a metadata server, the token exchanges of users, external accounts and impersonation, and

    POST /fake/order            {"deny": [ID], "down": BOOL, "hang": BOOL, "spoil": BOOL, "revoke": true}; what is not
                                named stays as it is. `revoke`: no token that was seen so far is accepted any more
    GET  /fake/calls            {METHOD: how often}, of the API and of every login
    POST /fake/corrupt          {"id": ID}: the next payloads of this secret do not fit their checksum
    GET  /fake/service-account  the key file of a service account whose signatures are verified here
"""
import base64
import collections
import hashlib
import json
import re
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

import google_crc32c
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.cloud import secretmanager_v1 as sm
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import rest_base
from google.protobuf import json_format

PROJECT = "p"
# Google's own number for it, which stands in the names that it returns for versions.
NUMBER = "1234567890"
STATE = sm.SecretVersion.State
HTTP = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "UNAVAILABLE": 503,
}


class Refused(Exception):
    def __init__(self, code, message, reason=None, resource=None):
        super().__init__(message)
        self.code, self.message, self.reason, self.resource = code, message, reason, resource

    def body(self):
        error = {"code": HTTP[self.code], "message": self.message, "status": self.code}
        if self.reason:
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": self.reason}
            info |= {"domain": "iam.googleapis.com", "metadata": {"resource": self.resource}}
            error["details"] = [info]
        return {"error": error}


# --- what is stored ---------------------------------------------------------------------------------------------------

lock = threading.RLock()
secrets = {}  # by name
versions = {}  # by name
payloads = {}  # by the version's name
faults = {"deny": [], "down": False, "spoil": False, "corrupt": []}
going = threading.Event()  # cleared: everything hangs
going.set()
calls = collections.Counter()


def etag():
    return '"%s"' % hashlib.sha1(str(time.time_ns()).encode()).hexdigest()[:12]


def stamp(message, field):
    getattr(message._pb, field).FromNanoseconds(time.time_ns())


def secret_of(name):
    if name not in secrets:
        raise Refused("NOT_FOUND", f"Secret [{name}] not found.")
    return secrets[name]


def versions_of(secret):
    own = [version for name, version in versions.items() if name.startswith(secret + "/versions/")]
    return sorted(own, key=lambda version: -int(version.name.rsplit("/", 1)[1]))


def version_of(name):
    secret, version = name.rsplit("/versions/", 1)
    secret_of(secret)
    if version == "latest":
        newest = versions_of(secret)
        if not newest:
            raise Refused("NOT_FOUND", f"Secret [{secret}] not found or has no versions.")
        return newest[0]
    if name not in versions:
        raise Refused("NOT_FOUND", f"Secret Version [{name}] not found.")
    return versions[name]


def check_labels(labels):
    for key, value in labels.items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or not re.fullmatch(r"[a-z0-9_-]{0,63}", value):
            raise Refused("INVALID_ARGUMENT", f"Invalid label: {key}={value}")


def matches(secret, text):
    """Enough of the filter language: `name:x`, `labels.k=v`, `labels.k:*`, joined by AND."""
    for term in filter(None, re.split(r"\s+AND\s+", text)):
        parts = re.fullmatch(r'(name|labels\.([\w-]+))(=|:)"?([^"]*)"?', term.strip())
        if not parts:
            raise Refused("INVALID_ARGUMENT", f"Invalid filter: {term}")
        field, label, operator, value = parts.groups()
        if field == "name":
            found = value in secret.name.split("/secrets/")[1]
        elif label not in secret.labels:
            found = False
        else:
            own = secret.labels[label]
            found = value == "*" or (own == value if operator == "=" else value in own)
        if not found:
            return False
    return True


def page_of(items, request):
    size = min(request.page_size or 25000, 25000)
    start = int(base64.b64decode(request.page_token)) if request.page_token else 0
    following = base64.b64encode(str(start + size).encode()).decode() if start + size < len(items) else ""
    return items[start : start + size], following, len(items)


def check_deny(name, permission):
    if name.split("/secrets/")[1].split("/")[0] in faults["deny"]:
        message = f"Permission '{permission}' denied for resource '{name}' (or it may not exist)."
        raise Refused("PERMISSION_DENIED", message, "IAM_PERMISSION_DENIED", name)


class Methods:
    def create_secret(request):
        name = f"{request.parent}/secrets/{request.secret_id}"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", request.secret_id):
            raise Refused("INVALID_ARGUMENT", "Invalid secret_id")
        if not request.secret._pb.HasField("replication"):
            raise Refused("INVALID_ARGUMENT", "replication is required")
        if name in secrets:
            raise Refused("ALREADY_EXISTS", f"Secret [{name}] already exists.")
        check_labels(request.secret.labels)
        secret = request.secret
        secret.name, secret.etag = name, etag()
        stamp(secret, "create_time")
        secrets[name] = secret
        return secret

    def get_secret(request):
        check_deny(request.name, "secretmanager.secrets.get")
        return secret_of(request.name)

    def list_secrets(request):
        own = [secret for name, secret in sorted(secrets.items()) if name.startswith(request.parent + "/secrets/")]
        items, following, total = page_of([secret for secret in own if matches(secret, request.filter)], request)
        return sm.ListSecretsResponse(secrets=items, next_page_token=following, total_size=total)

    def update_secret(request):
        secret = secret_of(request.secret.name)
        for path in request.update_mask.paths:
            if path != "labels":
                raise Refused("INVALID_ARGUMENT", f"cannot update {path}")
            check_labels(request.secret.labels)
            secret.labels = dict(request.secret.labels)
        secret.etag = etag()
        return secret

    def delete_secret(request):
        secret_of(request.name)
        del secrets[request.name]
        for name in [name for name in versions if name.startswith(request.name + "/")]:
            del versions[name]
            payloads.pop(name, None)

    def add_secret_version(request):
        secret_of(request.parent)
        data = request.payload.data
        if not data:
            raise Refused("INVALID_ARGUMENT", "Secret Payload cannot be empty.")
        if len(data) > 65536:
            raise Refused("INVALID_ARGUMENT", "The payload is too large.")
        checksum = google_crc32c.value(data)
        if request.payload._pb.HasField("data_crc32c") and request.payload.data_crc32c != checksum:
            raise Refused("INVALID_ARGUMENT", "The payload does not fit its checksum.")
        newest = versions_of(request.parent)
        number = int(newest[0].name.rsplit("/", 1)[1]) + 1 if newest else 1
        version = sm.SecretVersion(name=f"{request.parent}/versions/{number}", state=STATE.ENABLED, etag=etag())
        stamp(version, "create_time")
        versions[version.name] = version
        payloads[version.name] = sm.SecretPayload(data=data, data_crc32c=checksum)
        return version

    def get_secret_version(request):
        return version_of(request.name)

    def list_secret_versions(request):
        secret_of(request.parent)
        items, following, total = page_of(versions_of(request.parent), request)
        return sm.ListSecretVersionsResponse(versions=items, next_page_token=following, total_size=total)

    def access_secret_version(request):
        check_deny(request.name, "secretmanager.versions.access")
        if faults["spoil"]:
            raise Refused("UNAVAILABLE", "no payload is given away")
        version = version_of(request.name)
        if version.state != STATE.ENABLED:
            message = f"Secret Version [{version.name}] is in {version.state.name} state."
            raise Refused("FAILED_PRECONDITION", message)
        payload = payloads[version.name]
        if version.name.split("/")[3] in faults["corrupt"]:
            payload = sm.SecretPayload(data=payload.data + b"?", data_crc32c=payload.data_crc32c)
        name = version.name.replace(f"projects/{PROJECT}/", f"projects/{NUMBER}/", 1)
        return sm.AccessSecretVersionResponse(name=name, payload=payload)

    def _become(request, state):
        version = version_of(request.name)
        if version.state == STATE.DESTROYED:
            raise Refused("FAILED_PRECONDITION", "Secret Version is destroyed.")
        version.state, version.etag = state, etag()
        if state == STATE.DESTROYED:
            stamp(version, "destroy_time")
            payloads.pop(version.name, None)
        return version

    def enable_secret_version(request):
        return Methods._become(request, STATE.ENABLED)

    def disable_secret_version(request):
        return Methods._become(request, STATE.DISABLED)

    def destroy_secret_version(request):
        return Methods._become(request, STATE.DESTROYED)


def routes():
    """The official client's own table of HTTP routes."""
    table = []
    for name, rule in vars(rest_base._BaseSecretManagerServiceRestTransport).items():
        method = re.fullmatch(r"_Base(\w+)", name)
        method = method and re.sub(r"(?<!^)(?=[A-Z])", "_", method[1]).lower()
        if not method or not hasattr(Methods, method):
            continue
        request = getattr(sm, name.removeprefix("_Base") + "Request")
        for option in rule._get_http_options():
            field = lambda found: f"(?P<{found[1].replace('.', '__')}>{found[2].replace('*', '[^/:]+')})"
            path = re.compile(re.sub(r"\{([\w.]+)=([^}]*)\}", field, option["uri"]))
            table.append((option["method"].upper(), path, method, request, option.get("body")))
    return table


ROUTES = routes()


def call(verb, path, query, body):
    for route_verb, pattern, method, kind, body_field in ROUTES:
        found = pattern.fullmatch(path)
        if route_verb != verb or not found:
            continue
        request = kind()
        fields = dict(parse_qsl(query))
        enums_as_numbers = "int" in fields.pop("$alt", "")
        if body and body_field == "*":
            json_format.Parse(body, request._pb, ignore_unknown_fields=True)
        elif body and body_field:
            json_format.Parse(body, getattr(request._pb, body_field), ignore_unknown_fields=True)
        plain = {key: value for key, value in fields.items() if "." not in key}
        json_format.ParseDict(plain, request._pb, ignore_unknown_fields=True)
        for key, value in found.groupdict().items():
            target = request._pb
            *parents, last = key.split("__")
            for parent in parents:
                target = getattr(target, parent)
            setattr(target, last, value)
        with lock:
            calls[method] += 1
            reply = getattr(Methods, method)(request)
            if reply is None:
                return "{}"
            return json_format.MessageToJson(reply._pb, use_integers_for_enums=enums_as_numbers)
    raise Refused("NOT_FOUND", f"no route {verb} {path}")


# --- logins -----------------------------------------------------------------------------------------------------------

key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
revoked = set()
seen = set()


def new_token(kind):
    """A token that is accepted until it is revoked."""
    calls[kind] += 1
    token = f"{kind}-{calls[kind]}"
    seen.add(token)
    return token


def unpadded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def check_signature(token):
    """What a service account signed for itself, without any exchange."""
    head, claims, signature = token.split(".")
    try:
        signed = f"{head}.{claims}".encode()
        key.public_key().verify(unpadded(signature), signed, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        raise Refused("UNAUTHENTICATED", "The signature does not fit.")
    claims = json.loads(unpadded(claims))
    if claims["iss"] != "robot@p.iam.gserviceaccount.com" or claims["exp"] < time.time():
        raise Refused("UNAUTHENTICATED", "The token is not, or not any more, valid.")


def check_token(header):
    token = (header or "").removeprefix("Bearer ")
    with lock:
        refused = not token or token in revoked or token == "wrong"
        seen.add(token)
    if refused:
        raise Refused("UNAUTHENTICATED", "Request had invalid authentication credentials.")
    if token == "powerless":
        message = "Permission denied on the project."
        raise Refused("PERMISSION_DENIED", message, "IAM_PERMISSION_DENIED", f"projects/{PROJECT}")
    if token.count(".") == 2:
        check_signature(token)
    return token


def log_in(path, headers, body):
    """The token services; None where `path` is none of theirs."""
    if path.startswith("/computeMetadata/v1/"):
        if headers.get("Metadata-Flavor") != "Google":
            return 403, {}
        if path.endswith("/token"):
            return 200, {"access_token": new_token("metadata"), "expires_in": 3599, "token_type": "Bearer"}
        return 404, {}
    if path == "/oauth/token":
        order = json.loads(body)
        if order["refresh_token"] == "revoked":
            return 400, {"error": "invalid_grant", "error_description": "Token has been expired or revoked."}
        return 200, {"access_token": new_token("user"), "expires_in": 3599, "token_type": "Bearer"}
    if path == "/sts/token":
        order = dict(parse_qsl(body.decode()))
        if order["subject_token"] != "a-token-of-the-platform":
            return 400, {"error": "invalid_grant"}
        kind = "urn:ietf:params:oauth:token-type:access_token"
        reply = {"access_token": new_token("external"), "expires_in": 3599, "token_type": "Bearer"}
        return 200, reply | {"issued_token_type": kind}
    if path.endswith(":generateAccessToken"):
        check_token(headers.get("Authorization"))
        expires = datetime.now(timezone.utc) + timedelta(hours=1)
        return 200, {"accessToken": new_token("impersonated"), "expireTime": expires.strftime("%Y-%m-%dT%H:%M:%SZ")}
    return None


def service_account():
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {"type": "service_account", "project_id": PROJECT, "private_key_id": "1"}
    return account | {"private_key": private.decode(), "client_email": "robot@p.iam.gserviceaccount.com"}


# --- the tests' own levers --------------------------------------------------------------------------------------------


def obey(order):
    with lock:
        faults.update({name: value for name, value in order.items() if name in faults})
        if order.get("revoke"):
            revoked.update(seen)
    if "hang" in order:
        (going.clear if order["hang"] else going.set)()
    return {}


def lever(path, body):
    match path:
        case "/fake/order":
            return obey(json.loads(body))
        case "/fake/calls":
            with lock:
                return dict(calls)
        case "/fake/corrupt":
            return obey({"corrupt": [json.loads(body)["id"]]})
        case "/fake/service-account":
            return service_account()


# --- HTTP -------------------------------------------------------------------------------------------------------------


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body):
        body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def serve(self):
        body = self.body()
        url = urlsplit(self.path)
        if url.path.startswith("/fake/"):
            return self.reply(200, lever(url.path, body))
        going.wait()
        try:
            if faults["down"]:
                raise Refused("UNAVAILABLE", "The service is currently unavailable.")
            if (answer := log_in(url.path, self.headers, body)) is not None:
                return self.reply(*answer)
            check_token(self.headers.get("Authorization"))
            self.reply(200, call(self.command, url.path, url.query, body))
        except json_format.ParseError as error:
            self.reply(400, Refused("INVALID_ARGUMENT", str(error)).body())
        except Refused as refused:
            self.reply(HTTP[refused.code], refused.body())
        except BrokenPipeError:
            pass  # the client has given up

    do_GET = do_POST = do_PATCH = do_DELETE = serve


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
