"""Requests without any client, to see the bytes that are sent."""

import json
import urllib.request


def post(url, key, path, body):
    """The body of the answer; of a stream the data of each frame."""
    request = urllib.request.Request(
        f"{url}/{path}",
        data=json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        text = answer.read().decode()
        if not body.get("stream"):
            assert answer.headers["content-type"] == "application/json"
            return text
        assert answer.headers["content-type"] == "text/event-stream"
    assert text.endswith("\n\n")
    frames = text[:-2].split("\n\n")
    assert all(frame.startswith("data: ") and "\n" not in frame for frame in frames)
    assert frames.pop() == "data: [DONE]"
    return [frame.removeprefix("data: ") for frame in frames]
