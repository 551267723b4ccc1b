"""Secrets that are shown once, and commands that report an error instead of hanging or reporting success."""

import http.server
import json
import os
import signal
import socket
import subprocess
import threading

import pytest

from raw import NO_MODEL, ask
from weir import BINARY, PATIENCE, environment, model, wait_until


def shell(weir, line):
    """Runs a line of bash in the server's directory, with `weir` on the path. Returns the status of the line's first command."""
    script = f'weir() {{ "{BINARY}" "$@"; }}; {line}; exit "${{PIPESTATUS[0]}}"'
    return subprocess.run(
        ["bash", "-c", script], cwd=weir.directory, env=environment(), capture_output=True, text=True, timeout=PATIENCE
    )


@pytest.mark.parametrize("command", ["key add alice | true", "key add alice >/dev/null", "key add alice >&-"])
def test_a_key_that_nobody_saw_is_not_made(make_weir, command):
    weir = make_weir()
    weir.run("account", "add", "alice")
    for _ in range(5):
        done = shell(weir, f"weir {command}")
        live = [key for key in weir.data("key", "list", "alice") if not key["revoked_at"]]
        assert done.returncode == 1 and "can't be shown" in done.stderr and not live, (done, live)


def test_a_secret_that_nobody_saw_replaces_none(make_weir):
    weir = make_weir(models=NO_MODEL).start()
    key = weir.new_key("alice", 1)
    done = shell(weir, f'weir key rotate {key["id"]} --grace 0s | true')
    assert done.returncode == 1 and key["id"] in done.stderr
    assert ask(weir, "GET", "/v1/key", key["key"])[0] == 200


def test_a_first_start_without_a_stdout_loses_no_key(make_weir):
    weir = make_weir(models=NO_MODEL)
    log = (weir.directory / "log").open("wb")
    process = subprocess.Popen(
        ["sh", "-c", 'exec "$@" >&-', "sh", BINARY, "serve"], cwd=weir.directory, env=environment(), stderr=log
    )
    secret = weir.directory / "data" / "demo-key"
    try:
        wait_until(secret.exists, "the key is in a file")
        wait_until(lambda: weir.data("key", "list", "demo"), "the key is made")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0
    assert secret.stat().st_mode & 0o777 == 0o600
    weir.start()
    key = secret.read_text().strip()
    assert ask(weir, "GET", "/v1/key", key)[0] == 200
    assert "sk_" not in (weir.directory / "log").read_text()


def test_a_model_that_is_no_file_is_refused_at_once(make_weir, tmp_path):
    pipe, below = tmp_path / "pipe.gguf", tmp_path / "directory.gguf"
    os.mkfifo(pipe)
    below.mkdir()
    weir = make_weir(models=model("pipe", pipe) + model("directory", below)).start()
    log = weir.log.read_text()
    assert log.count("is a named pipe, not a GGUF file") == 1 and log.count("is a directory, not a GGUF file") == 1
    doctor = weir.run("doctor", "--json", check=False)
    assert doctor.returncode == 1 and "is a named pipe" in doctor.stdout


def test_without_permission_nothing_is_missing(make_weir):
    """Without permission to read the data directory, the error says so, not that the database is missing."""
    nobody = 65534
    weir = make_weir()
    weir.run("account", "add", "alice")
    os.chmod(weir.directory / "data", 0o700)
    binary = weir.directory / "weir-copy"
    binary.write_bytes(BINARY.read_bytes())
    binary.chmod(0o755)
    for part in [weir.directory, *weir.directory.parents]:
        if part.stat().st_uid == os.getuid() and part != part.parent:
            part.chmod(part.stat().st_mode | 0o011)
    done = subprocess.run(
        [binary, "account", "list"], cwd=weir.directory, env=environment(), user=nobody, group=nobody,
        extra_groups=[], capture_output=True, text=True, timeout=PATIENCE,
    )
    assert done.returncode == 1 and "no permission" in done.stderr and "there is no database" not in done.stderr, done


def test_a_port_in_use_is_noticed_before_anything_is_loaded(make_weir):
    weir = make_weir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = weir.run("serve", "--listen", f"127.0.0.1:{port}", check=False)
    assert done.returncode == 1 and f"can't listen on 127.0.0.1:{port}" in done.stderr
    assert "llama" not in done.stderr and not (weir.directory / "data").exists()


class Chat(http.server.BaseHTTPRequestHandler):
    """A server whose model answers with control sequences, and which records the keys that it is called with."""

    keys = []

    def answer(self, text):
        self.keys.append(self.headers["authorization"])
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self):
        models = {"data": [{"id": "m\x1b[31m", "endpoints": ["chat/completions"], "status": 1}]}
        self.answer(json.dumps(models).encode())

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        chunk = {"choices": [{"index": 0, "delta": {"content": "safe\x1b[2J\x1b]0;owned\x07\u202e\n"}}]}
        self.answer(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n".encode())

    def log_message(self, *arguments):
        pass


def test_chat_takes_a_key_from_a_file_and_a_models_words_for_data(make_weir):
    with http.server.HTTPServer(("127.0.0.1", 0), Chat) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        env = {"WEIR_BASE_URL": f"http://127.0.0.1:{server.server_port}\n", "WEIR_API_KEY": "sk_a_b\n"}
        done = make_weir().run("chat", env=env, input="hello\n", check=False)
        strange = make_weir().run("chat", env=env | {"WEIR_API_KEY": "sk_a b"}, input="hello\n", check=False)
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("safe\\u{1b}[2J\\u{1b}]0;owned\\u{7}\\u{202e}\n")
    assert "\x1b" not in done.stderr and Chat.keys[-1] == "Bearer sk_a_b"
    assert strange.returncode == 1 and "WEIR_API_KEY is no API key" in strange.stderr
