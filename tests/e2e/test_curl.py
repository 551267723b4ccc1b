"""The bytes on the wire, by curl."""

import json
import subprocess
from urllib.parse import quote

import pytest

from weir import DEMO, PATIENCE

BASES = ["/v3/openai", "/v3/openai/v1", "/openai", "/openai/v1", "/v1"]
BODY = json.dumps({"model": DEMO, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4})


def curl(url, *options, key=None, data=None):
    """The status, the headers (in lower case) and the body."""
    command = ["curl", "-sS", "--path-as-is", "-D", "-", "-o", "-", *options]
    if key:
        command += ["-H", f"Authorization: Bearer {key}"]
    if data is not None:
        command += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
    data = data.encode() if isinstance(data, str) else data
    done = subprocess.run([*command, url], input=data, capture_output=True, timeout=PATIENCE)
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    while head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split()[1]), headers, body.decode()


@pytest.mark.parametrize("base", BASES)
def test_every_base(weir, base):
    status, headers, body = curl(f"{weir.url}{base}/chat/completions", key=weir.key, data=BODY)
    assert status == 200 and json.loads(body)["usage"]["completion_tokens"] > 0
    assert headers["x-request-id"] and headers["openai-version"] == "2020-10-01" and headers["openai-processing-ms"]
    assert curl(f"{weir.url}{base}/completions", key=weir.key, data=f'{{"model":"{DEMO}","prompt":"x"}}')[0] == 200
    for path in ("/models", f"/models/{DEMO}", f"/models/{quote(DEMO, safe='')}", "//models/"):
        assert curl(f"{weir.url}{base}{path}")[0] == 200, path


def test_the_bare_key_is_accepted(weir):
    status, _, _ = curl(f"{weir.url}/v1/chat/completions", "-H", f"Authorization: {weir.key}", data=BODY)
    assert status == 200


def test_a_stream_is_frames_and_nothing_else(weir):
    body = json.dumps({"model": DEMO, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 8, "stream": True})
    status, headers, text = curl(f"{weir.url}/v1/chat/completions", "-N", key=weir.key, data=body)
    assert status == 200 and headers["content-type"].startswith("text/event-stream")
    frames = text.split("\n\n")
    assert frames.pop() == "" and frames.pop() == "data: [DONE]"
    chunks = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    assert all(frame.startswith("data: {") for frame in frames)
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert chunks[-1]["choices"][0]["delta"] == {}


@pytest.mark.parametrize(
    "data, status",
    [
        ("", 400),
        ("{", 400),
        ("[]", 400),
        ('{"model": 1}', 400),
        (b'{"model": "\xff"}', 400),
        ('{"model": "x"}' + " " * 100_000_000, 413),
    ],
    ids=["empty", "broken", "list", "type", "utf8", "huge"],
)
def test_bad_bodies(weir, account, data, status):
    name, key = account
    answered, _, body = curl(f"{weir.url}/v1/chat/completions", "-H", "Expect:", key=key, data=data)
    assert answered == status, body
    error = json.loads(body)
    assert error["code"] == status and set(error["error"]) == {"message", "type", "param", "code"}
    assert weir.usage(name) == []


def test_paths_and_methods(weir):
    assert curl(f"{weir.url}/v1/nothing")[0] == 404
    status, headers, body = curl(f"{weir.url}/v1/chat/completions", "-X", "PUT")
    assert status == 405 and "post" in headers["allow"] and json.loads(body)["reason"] == "METHOD_NOT_ALLOWED"
    assert curl(f"{weir.url}/health")[0] == 200 and curl(f"{weir.url}/ready")[0] == 200


def test_cors(weir):
    url, origin = f"{weir.url}/v1/chat/completions", "Origin: https://chat.example.com"
    asked = ["-H", "Access-Control-Request-Method: POST", "-H", "Access-Control-Request-Headers: authorization"]
    status, headers, _ = curl(url, "-X", "OPTIONS", "-H", origin, *asked)
    assert status in (200, 204) and headers["access-control-allow-origin"] == "https://chat.example.com"
    _, headers, _ = curl(url, "-X", "OPTIONS", "-H", "Origin: https://evil.example", *asked)
    assert "access-control-allow-origin" not in headers


def test_the_key_does_not_show_in_the_log(weir):
    assert curl(f"{weir.url}/v1/chat/completions", key=weir.key, data="{")[0] == 400
    assert weir.key.split("_")[2] not in weir.log.read_text()
