"""Events reach a receiver, also across restarts of the server."""

import base64
import hashlib
import hmac
import json
import signal
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from weir import wait_until

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()


class Receiver(ThreadingHTTPServer):
    """A receiver that refuses all events until `status` is changed."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.status = 503
        self.seen = []  # id, event, status
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def taken(self):
        return {id: event for id, event, status in list(self.seen) if status == 200}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        id, timestamp = self.headers["webhook-id"], self.headers["webhook-timestamp"]
        mac = hmac.new(KEY, f"{id}.{timestamp}.".encode() + body, hashlib.sha256)
        signed = "v1," + base64.b64encode(mac.digest()).decode()
        status = self.server.status if self.headers["webhook-signature"] == signed else 401
        self.server.seen.append((id, json.loads(body), status))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *arguments):
        pass


@pytest.fixture
def receiver():
    receiver = Receiver()
    yield receiver
    receiver.shutdown()


def hook(url):
    return f"""
[[webhooks]]
name = "hook"
url = "{url}"
events = ["credit.added", "key.created"]
allow_private = true
"""


def test_nothing_is_lost_when_the_server_is_killed(make_weir, receiver):
    secret = {"WEIR_WEBHOOKS_0_SECRET": SECRET}
    weir = make_weir(settings=hook(f"http://127.0.0.1:{receiver.server_port}/in?token=c4nary"))
    weir.start(secret)
    first = wait_until(lambda: receiver.seen, "the first attempt")[0]
    assert first[1]["type"] == "credit.added" and first[2] == 503
    weir.run("credit", "demo", "3", env=secret)
    weir.signal(signal.SIGKILL)
    weir.wait()
    # An event is stored while no server runs.
    key = json.loads(weir.run("key", "add", "demo", "--name", "ci", "--json", env=secret))

    receiver.status = 200
    weir.start(secret)
    taken = wait_until(lambda: len(receiver.taken()) == 4 and receiver.taken(), "four events")
    paid = [event["data"]["amount"] for event in taken.values() if event["type"] == "credit.added"]
    made = [event["data"]["key_name"] for event in taken.values() if event["type"] == "key.created"]
    assert sorted(paid) == ["3", "5"] and sorted(made) == ["ci", "first start"]
    assert taken[first[0]] == first[1], "the same id as at the first attempt"
    assert key["key"] not in json.dumps(list(taken.values()))
    assert {status for *_, status in receiver.seen} == {503, 200}, "all were signed"
    log = weir.log.read_text()
    assert "not delivered" in log
    assert SECRET not in log and "c4nary" not in log


def test_https_is_only_for_who_is_trusted(make_weir, receiver, tmp_path):
    openssl = lambda *arguments: subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)
    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ours")
    openssl(*new, "-keyout", "key.pem", "-out", "request", "-subj", "/CN=localhost")
    (tmp_path / "names").write_text("subjectAltName = DNS:localhost")
    sign = ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "names"]
    openssl("x509", "-req", "-in", "request", "-out", "cert.pem", *sign)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    receiver.socket = tls.wrap_socket(receiver.socket, server_side=True)
    receiver.status = 200

    secret = {"WEIR_WEBHOOKS_0_SECRET": SECRET}
    weir = make_weir(settings=hook(f"https://localhost:{receiver.server_port}/"))
    weir.start(secret)
    wait_until(lambda: "invalid peer certificate" in weir.log.read_text(), "the first attempt")
    weir.stop()
    assert receiver.seen == []
    weir.start(secret | {"SSL_CERT_FILE": str(tmp_path / "ca.pem")})
    wait_until(lambda: len(receiver.taken()) == 2, "both events of the first start")
