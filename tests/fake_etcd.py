"""An etcd in a thread: as much of the v3 gateway's JSON as minijwt speaks, strict about what etcd is strict about.

    with FakeEtcd() as etcd:
        etcd.port                       # listens on 127.0.0.1
        etcd.before = function          # called with (path, body) before each request is done; what it returns as
                                        # (status, bytes) is the answer instead
        etcd.after = function           # likewise once it was done: for answers that are lost or late
        etcd.asked                      # (path, body) of all requests
"""

import json
import threading
from base64 import b64decode, b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_OPERATIONS = 128


class Refusal(Exception):
    """etcd says no: a gRPC code, and a message."""

    STATUS = {3: 400, 5: 404, 7: 403, 8: 429, 9: 400, 14: 503, 16: 401}

    def __init__(self, code, message):
        super().__init__(message)
        self.code, self.message = code, message

    def answer(self):
        body = {"error": self.message, "code": self.code, "message": self.message}
        return self.STATUS[self.code], json.dumps(body).encode()


def take(body, *names, need=("key",)):
    """The members of a request; one that etcd does not know is refused, as its gateway does."""
    for name in body:
        if name not in names:
            raise Refusal(3, f'unknown field "{name}"')
    for name in need:
        if name not in body:
            raise Refusal(3, "etcdserver: key is not provided")
    return body


class Rows:
    """Keys and what they hold, with revisions."""

    def __init__(self):
        self.rows, self.revision = {}, 1  # key → (value, mod_revision)

    def matching(self, body):
        key, end = b64decode(body["key"]), b64decode(body.get("rangeEnd", ""))
        return sorted(each for each in self.rows if (key <= each < end if end else each == key))

    def range(self, body):
        take(body, "key", "rangeEnd", "limit", "sortTarget", "sortOrder", "keysOnly", "countOnly")
        found = self.matching(body)
        count = len(found)
        if body.get("sortTarget") == "MOD":
            found.sort(key=lambda key: self.rows[key][1])
        if body.get("limit"):
            found = found[: int(body["limit"])]
        kvs = [{"key": b64encode(key).decode(), "value": b64encode(self.rows[key][0]).decode(),
                "mod_revision": str(self.rows[key][1])} for key in found]  # fmt: skip
        return {"header": {}, **({"kvs": kvs, "count": str(count)} if kvs else {})}

    def holds(self, compare):
        take(compare, "key", "target", "modRevision", "result")
        assert compare["target"] == "MOD"
        _, revision = self.rows.get(b64decode(compare["key"]), (None, 0))
        return revision == int(compare["modRevision"])

    def check(self, body, operations=MAX_OPERATIONS, puts=None):
        """Refuse what etcd would, before anything is done: too many operations, a key that is written twice."""
        puts = set() if puts is None else puts
        parts = [take(body, "compare", "success", "failure", need=()).get(part, []) for part in body]
        most = max([0, *map(len, parts)])
        if most > operations:
            raise Refusal(3, "etcdserver: too many operations in txn request")
        for each in body.get("success", []):
            ((kind, inner),) = each.items()
            if kind == "requestTxn":
                self.check(inner, operations - most, puts)
            elif kind != "requestRange":
                take(inner, "key", "value", "rangeEnd")
                if inner["key"] in puts:
                    raise Refusal(3, "etcdserver: duplicate key given in txn request")
                puts.add(inner["key"])

    def path(self, body):
        """Decide which branch of a transaction, and of those within it, is taken: before any of it is done."""
        good = all(map(self.holds, body.get("compare", [])))
        chosen = body.get("success" if good else "failure", [])
        return good, [
            (kind, inner, self.path(inner) if kind == "requestTxn" else None)
            for each in chosen for kind, inner in each.items()
        ]  # fmt: skip

    def apply(self, path, revision):
        good, steps = path
        responses = []
        for kind, inner, within in steps:
            if kind == "requestTxn":
                responses.append({"response_txn": self.apply(within, revision)})
            elif kind == "requestRange":
                responses.append({"response_range": self.range(inner)})
            elif kind == "requestPut":
                self.rows[b64decode(inner["key"])] = b64decode(inner.get("value", "")), revision
                self.revision = revision
                responses.append({"response_put": {"header": {}}})
            else:
                for key in self.matching(inner):
                    del self.rows[key]
                    self.revision = revision
                responses.append({"response_delete_range": {"header": {}}})
        return {"header": {}, **({"succeeded": True} if good else {}), **({"responses": responses} if responses else {})}

    def txn(self, body):
        self.check(body)
        if not body.get("success") and not body.get("failure"):
            raise Refusal(3, "etcd would answer this from one node's memory, which may be old")
        answer = self.apply(self.path(body), self.revision + 1)
        return {**answer, "header": {"revision": str(self.revision)}}


class FakeEtcd(ThreadingHTTPServer):
    """A cluster of one node, or one more node of `cluster`. With `login`, "user:password", it wants a token."""

    daemon_threads, block_on_close, request_queue_size = True, False, 64

    def __init__(self, cluster=None, login="", tls=None):
        super().__init__(("127.0.0.1", 0), Handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.port, self.login = self.server_address[1], login
        self.rows, self.lock = (cluster.rows, cluster.lock) if cluster else (Rows(), threading.Lock())
        self.before = self.after = lambda path, body: None
        self.asked, self.tokens = [], set()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def handle_error(self, request, client_address):
        """A client that went away."""

    def answer(self, path, body, token):
        if path == "/v3/auth/authenticate":
            if not self.login:
                raise Refusal(9, "etcdserver: authentication is not enabled")
            if [body["name"], body["password"]] != self.login.split(":"):
                raise Refusal(3, "etcdserver: authentication failed, invalid user ID or password")
            self.tokens.add(f"token.{len(self.asked)}")
            return {"header": {}, "token": f"token.{len(self.asked)}"}
        if self.login and not token:
            raise Refusal(3, "etcdserver: user name is empty")
        if self.login and token not in self.tokens:
            raise Refusal(16, "etcdserver: invalid auth token")
        if path == "/v3/maintenance/status":
            return {"header": {}, "version": "3.4.23"}
        verb = {"/v3/kv/range": self.rows.range, "/v3/kv/txn": self.rows.txn}.get(path)
        if verb is None:
            raise Refusal(5, "Not Found")
        with self.lock:
            return verb(body)

    def stop(self):
        self.shutdown()
        self.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.stop()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        etcd, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        etcd.asked.append((self.path, body))
        try:
            answer = etcd.before(self.path, body)
            if answer is None:
                done = etcd.answer(self.path, body, self.headers["Authorization"])
                answer = etcd.after(self.path, body) or (200, json.dumps(done).encode())
        except Refusal as refusal:
            answer = refusal.answer()
        status, text = answer
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments):
        pass
