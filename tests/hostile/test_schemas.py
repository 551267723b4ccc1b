"""Schemas that recurse or multiply: the process survives, the work is bounded, and it ends when the caller hangs up."""

import json
import os
import socket
import threading
import time
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from weir import DEMO, DEMO_FILE, Weir, model, wait_until

# The most processor time that one schema may take, wherever it is compiled, on a busy machine.
SECONDS_MAX = 6
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """One server for all tests: starting one takes longer than most tests."""
    server = Weir(tmp_path_factory.mktemp("schemas"), model(DEMO, DEMO_FILE)).start()
    yield server
    server.stop()


@pytest.fixture
def weir(server, request):
    """The server, with a key of an account that has compiled nothing yet."""
    server.key = server.new_key(request.node.name.replace("_", "-")[:40], 5)["key"]
    return server


def processor_seconds(weir):
    """User and system time of the server so far."""
    fields = open(f"/proc/{weir.process.pid}/stat").read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def body(schema, **more):
    schema = {"name": "x", "schema": schema}
    messages = [{"role": "user", "content": "x"}]
    return {"model": DEMO, "messages": messages, "response_format": {"type": "json_schema", "json_schema": schema}} | more


def post(weir, path, body):
    """Posts a body. Returns the answer's status, headers and JSON."""
    connection = HTTPConnection(urlsplit(weir.url).netloc, timeout=60)
    connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {weir.key}"})
    answer = connection.getresponse()
    data = json.loads(answer.read())
    connection.close()
    return answer.status, answer.headers, data


def deep(levels=44, definitions=175):
    """A schema with thousands of levels, few of them in one definition."""
    defs = {f"a{definitions}": {"type": "null"}}
    for i in range(definitions):
        schema = {"$ref": f"#/$defs/a{i + 1}"}
        for _ in range(levels):
            schema = {"items": schema}
        defs[f"a{i}"] = schema
    return {"$defs": defs, "$ref": "#/$defs/a0"}


def any_of(count):
    return {"anyOf": [{"properties": {"a": {"const": i}}} for i in range(count)]}


BURNERS = {
    "patterns of names": {"patternProperties": {f"^{i}$": True for i in range(400)}},
    "one of many, among many": {"allOf": [{"oneOf": [{"const": i} for i in [*range(2690), 2689]]}] + [True] * 2700},
    "required": {"type": "object", "required": [str(i) for i in range(8000)]},
    "objects": {"allOf": [{"properties": {str(i): {"minLength": j} for i in range(250)}} for j in range(30)]},
    "any of many": {"allOf": [any_of(900), any_of(900)]},
    "patterns of one string": {"allOf": [{"pattern": f"a.{{{i}}}b"} for i in range(100)]},
    "conditions": {"allOf": [{"if": {"required": [str(i)]}, "then": {"required": ["x"]}} for i in range(40)]},
    "states": {"type": "string", "pattern": "^[ab]*a[ab]{30}$", "minLength": 200},
}


def test_depth_through_references_does_not_end_the_process(weir):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": deep()}}}}
    tools = {"tools": [tool], "tool_choice": "required", "max_tokens": 2}
    chat = {"model": DEMO, "messages": [{"role": "user", "content": "x"}]}
    plain = {key: value for key, value in body(deep(), max_tokens=2).items() if key != "messages"} | {"prompt": "x"}
    for path, request in [
        ("/v1/count", body(deep())),
        ("/v1/chat/completions", body(deep(), max_tokens=2)),
        ("/v1/completions", plain),
        # This schema's text is longer than the model's context.
        ("/v1/count", chat | tools),
    ]:
        status, _, data = post(weir, path, request)
        assert status == 200 or "maximum context length" in data["message"], (path, data)
        assert weir.process.poll() is None, path
    assert weir.client().models.list().data


def test_small_schemas_take_little_work(weir):
    for what, schema in BURNERS.items():
        before = processor_seconds(weir)
        status, _, data = post(weir, "/v1/count", body(schema))
        spent = processor_seconds(weir) - before
        assert status == 200, (what, data)
        assert spent < SECONDS_MAX, f"{what}: {spent} s of processor time"
    memory = int(next(line for line in open(f"/proc/{weir.process.pid}/status") if line.startswith("VmHWM")).split()[1])
    assert memory < 2_000_000, f"{memory} kB at most"


def test_a_caller_that_leaves_ends_the_work(weir):
    address = urlsplit(weir.url)
    request = json.dumps(body(BURNERS["objects"])).encode()
    head = (
        f"POST /v1/count HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {weir.key}\r\n"
        f"content-length: {len(request)}\r\n\r\n"
    ).encode()
    for i in range(20):
        with socket.create_connection((address.hostname, address.port)) as connection:
            connection.sendall(head + request)
    # All callers are gone: soon nothing is computed any more.
    def is_idle():
        before = processor_seconds(weir)
        threading.Event().wait(0.3)
        return processor_seconds(weir) - before < 0.1

    started = time.monotonic()
    wait_until(is_idle, "the work goes on though nobody waits for it")
    assert time.monotonic() - started < 30


def test_an_account_compiles_one_grammar_at_a_time_and_pays_for_it(weir):
    refused = None
    for i in range(200):
        schema = {"oneOf": [{"minLength": least + i} for least in range(300)]}
        status, headers, data = post(weir, "/v1/count", body(schema))
        if status != 200:
            refused = (status, data["reason"])
            break
    assert refused == (429, "RATE_LIMIT_EXCEEDED"), data
    assert 1 <= int(headers["retry-after"]) <= 60
    # Ordinary requests still work: one without a schema isn't refused.
    assert post(weir, "/v1/count", {"model": DEMO, "prompt": "x"})[0] == 200
