"""HTTP by hand, for requests that no client would send."""

import json
import socket

from weir import model

# For tests that need no answer of a model: the server starts at once, and still serves /v1/key.
NO_MODEL = model("test/missing", "missing.gguf")


def address(url):
    host, port = url.removeprefix("http://").rsplit(":", 1)
    return host, int(port)


def connect(weir, source="127.0.0.1"):
    return socket.create_connection(address(weir.url), timeout=60, source_address=(source, 0))


def head(method, path, key=None, more="", length=None):
    lines = [f"{method} {path} HTTP/1.1", "host: x"]
    lines += [f"authorization: Bearer {key}"] if key else []
    lines += [f"content-length: {length}"] if length is not None else []
    lines += [more] if more else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def read(connection):
    """Reads an answer with a content-length: its status, its headers as a text, its body."""
    text = b""
    while b"\r\n\r\n" not in text:
        more = connection.recv(65536)
        assert more, f"the connection ended: {text!r}"
        text += more
    front, body = text.split(b"\r\n\r\n", 1)
    front = front.decode().lower()
    length = int(front.split("content-length: ")[1].split("\r\n")[0])
    while len(body) < length:
        more = connection.recv(65536)
        assert more, "the connection ended in the body"
        body += more
    return int(front.split()[1]), front, body


def ask(weir, method, path, key=None, body=None, source="127.0.0.1"):
    """Sends a request on a connection of its own. Returns the answer's status, headers and body."""
    data = None if body is None else json.dumps(body).encode()
    with connect(weir, source) as connection:
        connection.sendall(head(method, path, key, length=None if data is None else len(data)) + (data or b""))
        return read(connection)


def memory(weir):
    """The memory of the server's process, in MiB."""
    with open(f"/proc/{weir.process.pid}/status") as status:
        [line] = [line for line in status if line.startswith("VmRSS:")]
    return int(line.split()[1]) / 1024
