"""Idle connections shut nobody out, however many there are."""

import resource
import socket
import threading
import time

import pytest

from raw import NO_MODEL, address, ask, connect, head
from weir import DEMO, wait_until

CROWD = 4300
HEALTH = head("GET", "/health")


@pytest.fixture(scope="module", autouse=True)
def open_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < CROWD + 200:
        pytest.skip(f"the hard limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Crowd:
    """Connections from these addresses in turn. While it can, each sends a request without a key every two seconds."""

    def __init__(self, weir, sources):
        self.connections = []
        self.asked = 0
        self.ends = threading.Event()
        for number in range(CROWD):
            source = (sources[number % len(sources)], 0)
            connection = socket.create_connection(address(weir.url), timeout=60, source_address=source)
            connection.setblocking(False)
            self.connections.append(connection)
            if number == 0:
                self.thread = threading.Thread(target=self.ask)
                self.thread.start()

    def ask(self):
        while not self.ends.wait(2):
            self.asked = sum(map(self.asks, self.connections.copy()))

    @staticmethod
    def asks(connection):
        """Sends a request, and returns whether the connection is still open."""
        try:
            connection.send(HEALTH)
            return True
        except BlockingIOError:
            return True
        except OSError:
            return False

    def __enter__(self):
        # Waits until all have sent a request.
        self.asked = 0
        wait_until(lambda: self.asked, "the crowd asks")
        return self

    def __exit__(self, *_):
        self.ends.set()
        self.thread.join()
        for connection in self.connections:
            connection.close()


def served(weir, source):
    """The time until a new client has got answers, without a key and with one."""
    began = time.monotonic()
    assert ask(weir, "GET", "/health", source=source)[0] == 200
    status, _, body = ask(weir, "GET", "/v1/key", weir.key, source=source)
    assert status == 200, body
    return time.monotonic() - began


@pytest.mark.parametrize("sources", [["127.0.0.1"], [f"127.0.1.{host}" for host in range(1, 251)]], ids=["one", "many"])
def test_idle_connections_shut_nobody_out(make_weir, sources):
    weir = make_weir(models=NO_MODEL, settings='[log]\nfilter = "warn"\n').start()
    alone = served(weir, "127.0.0.9")
    with Crowd(weir, sources) as crowd:
        beside = served(weir, "127.0.0.9")
        # Nor is a client from the same address shut out: that address's idle connections are closed first.
        same = served(weir, sources[0])
        asked = crowd.asked
    print(f"\nalone {alone:.3f} s, beside {asked} connections {beside:.3f} s, from one of their addresses {same:.3f} s")
    assert max(beside, same) < 10
    assert asked > 500


def test_streams_on_all_connections_leave_room_for_health_checks(make_weir):
    settings = "[http]\nconnections_max = 24\nconnections_reserve = 6\nconnections_per_address_max = 18\n"
    weir = make_weir(settings=settings).start()
    body = b'{"model": "%s", "prompt": "x", "max_tokens": 4000, "stream": true, "logit_bias": {"2": -100, "0": -100}}'
    body %= DEMO.encode()
    streams = [connect(weir) for _ in range(18)]
    for connection in streams:
        connection.sendall(head("POST", "/v1/completions", weir.key, length=len(body)) + body)
        assert b"200 OK" in connection.recv(1000)
    for _ in range(20):
        status, front, _ = ask(weir, "GET", "/health", source="127.0.0.2")
        assert status == 200 and "connection: close" in front
    # Also beside connections that send nothing.
    silent = [connect(weir, "127.0.0.2") for _ in range(10)]
    assert ask(weir, "GET", "/ready", source="127.0.0.3")[0] == 200
    # The address with all of the streams is refused, but still gets answers to health checks.
    status, front, answer = ask(weir, "GET", "/v1/models")
    assert status == 429 and "retry-after: 1" in front and b"RATE_LIMIT_EXCEEDED" in answer
    assert ask(weir, "GET", "/health")[0] == 200
    for connection in streams + silent:
        connection.close()
