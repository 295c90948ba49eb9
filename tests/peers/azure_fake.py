"""An Azure Key Vault with the login services it needs, for tests: written from Microsoft's REST documentation, and checked
with Microsoft's own Python client.

    azure_fake.py CERTIFICATE KEY      serves HTTPS on a free loopback port, prints `port N`, and ends with its input

What it knows: challenge authentication, versions, tags, attributes, paging by nextLink, soft delete, recover and purge;
Entra's client credentials and client assertions (secret `right`, anything else is refused); a machine's metadata service.
A token is good until POST /_control forgets it. POST /_control takes an object of levers: `deny` (names whose value is
refused), `spoil` (every value is), `down` (connections are closed), `stall` (nothing is answered), `forget` (all tokens),
`erase` (everything there is). GET /_control tells how often what was called.
"""

import json
import re
import ssl
import sys
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

LARGEST_VALUE = 25600
PAGE = 25

lock = threading.RLock()
secrets = {}  # lower-case name -> (name as first written, versions, the oldest first)
deleted = {}
tokens = set()
calls = {}
levers = {}
released = threading.Event()
released.set()


class Refusal(Exception):
    def __init__(self, status, code, message, inner=None, headers=None):
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.body = {"error": {"code": code, "message": message}}
        if inner:
            self.body["error"]["innererror"] = {"code": inner}


def not_found(name):
    return Refusal(404, "SecretNotFound", f"A secret with (name/id) {name} was not found in this key vault.")


def properties(version):
    return {key: value for key, value in version.items() if key != "value"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, status, body=None, headers=None):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-ms-request-id", str(uuid.uuid4()))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def base(self):
        return f"https://{self.headers['Host']}"

    def read_body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def answer(self):
        body = self.read_body()
        url = urlsplit(self.path)
        query = parse_qs(url.query)
        parts = [part for part in url.path.split("/") if part]
        if parts == ["_control"]:
            return self.control(body)
        with lock:
            down, event = levers.get("down"), released
        if down:
            self.close_connection = True
            return None
        event.wait()
        try:
            if url.path.endswith("/oauth2/v2.0/token"):
                return self.log_in(parse_qs(body.decode()))
            if url.path.endswith("/.well-known/openid-configuration"):
                tenant = f"{self.base()}/{parts[0]}"
                endpoints = {name: f"{tenant}/oauth2/v2.0/{name.split('_')[0]}" for name in ("token_endpoint", "authorization_endpoint")}
                return self.reply(200, {**endpoints, "issuer": f"{tenant}/v2.0"})
            if url.path == "/metadata/identity/oauth2/token":
                return self.metadata(query)
            self.authorize()
            if "api-version" not in query:
                raise Refusal(400, "BadParameter", "api-version is missing")
            with lock:
                result = self.route(parts, query, json.loads(body) if body else {}, url.path)
            return self.reply(200, result) if result is not None else self.reply(204)
        except Refusal as refusal:
            return self.reply(refusal.status, refusal.body, refusal.headers)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer

    def control(self, body):
        global released
        with lock:
            if self.command == "GET":
                return self.reply(200, calls)
            order = json.loads(body)
            if order.pop("erase", False):
                for place in (secrets, deleted, levers, calls):
                    place.clear()
            if order.pop("forget", False):
                tokens.clear()
            stall = order.pop("stall", None)
            if stall:
                released = threading.Event()
            elif stall is not None:
                released.set()
            levers.update(order)
        return self.reply(204)

    def count(self, what):
        with lock:
            calls[what] = calls.get(what, 0) + 1

    # --- login

    def token(self):
        token = f"token-{uuid.uuid4()}"
        with lock:
            tokens.add(token)
        now = int(time.time())
        return {"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "expires_on": str(now + 3599),
                "not_before": str(now), "access_token": token, "resource": "https://vault.azure.net"}

    def log_in(self, form):
        self.count("login")
        secret, assertion = form.get("client_secret", [""])[0], form.get("client_assertion", [""])[0]
        if secret == "right" or assertion.strip() == "right":
            return self.reply(200, self.token())
        number, text = (7000215, "Invalid client secret provided.") if secret else (70021, "No matching federated identity record found.")
        return self.reply(401, {"error": "invalid_client", "error_description": f"AADSTS{number}: {text}", "error_codes": [number]})

    def metadata(self, query):
        self.count("metadata")
        if self.headers.get("Metadata") != "true":
            return self.reply(400, {"error": "invalid_request", "error_description": "Required metadata header not specified"})
        if query.get("client_id", ["known"])[0] != "known":
            return self.reply(400, {"error": "invalid_request", "error_description": "Identity not found"})
        return self.reply(200, self.token())

    def authorize(self):
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        with lock:
            good = kind == "Bearer" and token in tokens
        if not good:
            self.count("challenge")
            challenge = f'Bearer authorization="{self.base()}/tenant", resource="https://vault.azure.net"'
            message = "AKV10000: Request is missing a Bearer or PoP token."
            raise Refusal(401, "Unauthorized", message, headers={"WWW-Authenticate": challenge})

    # --- the vault

    def page(self, everything, query, path):
        size, start = int(query.get("maxresults", [PAGE])[0]), int(query.get("$skiptoken", [0])[0])
        if not 1 <= size <= PAGE:
            raise Refusal(400, "BadParameter", f"maxresults must be 1 to {PAGE}")
        link = None
        if start + size < len(everything):
            link = f"{self.base()}{path}?api-version={query['api-version'][0]}&$skiptoken={start + size}&maxresults={size}"
        return {"value": everything[start : start + size], "nextLink": link}

    def route(self, parts, query, body, path):
        if parts == ["secrets"]:
            self.count("list")
            heads = [dict(properties(versions[-1]), id=f"{self.base()}/secrets/{name}") for _, (name, versions) in sorted(secrets.items())]
            return self.page(heads, query, path)
        if parts == ["deletedsecrets"]:
            return self.page([dict(properties(kept[1][-1]), **info) for _, (kept, info) in sorted(deleted.items())], query, path)
        if len(parts) > 1 and not re.fullmatch(r"[0-9A-Za-z-]{1,127}", parts[1]):
            raise Refusal(400, "BadParameter", f"The request URI contains an invalid name: {parts[1]}")
        if parts[:1] == ["secrets"] and len(parts) > 1:
            return self.secret(parts[1], parts[2] if len(parts) > 2 else None, query, body, path)
        if parts[:1] == ["deletedsecrets"] and len(parts) > 1:
            return self.deleted_secret(parts[1], parts[2:])
        raise Refusal(404, "NotFound", "no such route")

    def write(self, name, body):
        if name.lower() in deleted:
            message = f"Secret {name} is currently in a deleted but recoverable state, and its name cannot be reused."
            raise Refusal(409, "Conflict", message, "ObjectIsDeletedButRecoverable")
        if len(body["value"].encode()) > levers.get("largest", LARGEST_VALUE):
            raise Refusal(400, "BadParameter", "Property value has invalid value: too long")
        now, version = int(time.time()), uuid.uuid4().hex
        first, versions = secrets.setdefault(name.lower(), (name, []))
        attributes = {"enabled": True, "created": now, "updated": now, "recoveryLevel": "Recoverable+Purgeable", "recoverableDays": 90}
        made = {"value": body["value"], "id": f"{self.base()}/secrets/{first}/{version}",
                "attributes": {**attributes, **(body.get("attributes") or {})}, "tags": body.get("tags") or {}}
        if body.get("contentType"):
            made["contentType"] = body["contentType"]
        versions.append(made)
        return made

    def secret(self, name, version, query, body, path):
        if self.command == "PUT":
            return self.write(name, body)
        if name.lower() not in secrets:
            self.count("missing")
            raise not_found(name)
        first, versions = secrets[name.lower()]
        if version == "versions":
            self.count("versions")
            return self.page([properties(one) for one in versions], query, path)
        chosen = next((one for one in versions if one["id"].endswith(f"/{version}")), None) if version else versions[-1]
        if chosen is None:
            raise not_found(f"{name}/{version}")
        if self.command == "GET":
            self.count("value")
            if levers.get("spoil"):
                raise Refusal(500, "InternalServerError", "An unexpected error occurred.")
            if name.lower() in levers.get("deny", []):
                raise Refusal(403, "Forbidden", "Caller is not authorized to perform action on resource.", "ForbiddenByRbac")
            # Expired and not yet valid secrets are given out, as Key Vault's documentation says.
            if not chosen["attributes"]["enabled"]:
                raise Refusal(403, "Forbidden", "Operation get is not allowed on a disabled secret.", "SecretDisabled")
            return chosen
        if self.command == "PATCH":
            chosen["attributes"].update(body.get("attributes") or {})
            chosen["attributes"]["updated"] = int(time.time())
            chosen.update({key: body[key] for key in ("tags", "contentType") if key in body})
            return properties(chosen)
        if self.command == "DELETE":
            now = int(time.time())
            info = {"recoveryId": f"{self.base()}/deletedsecrets/{first}", "deletedDate": now, "scheduledPurgeDate": now + 90 * 86400}
            deleted[name.lower()] = (secrets.pop(name.lower()), info)
            return dict(properties(versions[-1]), **info)
        raise Refusal(405, "MethodNotAllowed", "no such operation")

    def deleted_secret(self, name, rest):
        if name.lower() not in deleted:
            raise not_found(name)
        kept, info = deleted[name.lower()]
        if rest == ["recover"]:
            secrets[name.lower()] = kept
            del deleted[name.lower()]
            return properties(kept[1][-1])
        if self.command == "DELETE":
            del deleted[name.lower()]
            return None
        return dict(properties(kept[1][-1]), **info)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def finish_request(self, request, client_address):
        # The handshake belongs to the connection's own thread: a client that hangs in it holds up nobody.
        request = context.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, *_):
        pass


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1], sys.argv[2])
server = Server(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(f"port {server.server_address[1]}", flush=True)
# Whoever started this holds the other end.
sys.stdin.read()
