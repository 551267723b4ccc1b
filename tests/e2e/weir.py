"""Starts the real binary for a test: as a server, and for commands beside it."""

import json
import os
import queue
import signal
import subprocess
import threading
import time
from pathlib import Path

from openai import OpenAI

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("WEIR_BINARY", ROOT / "target/release/weir"))
MODELS = Path(os.environ.get("WEIR_TEST_MODELS", ROOT / "models"))
DEMO_FILE = MODELS / "SmolLM2-135M-Instruct.Q4_1.gguf"
GEMMA_FILE = MODELS / "gemma-3-270m-q4_k_m.gguf"

DEMO = "HuggingFaceTB/SmolLM2-135M-Instruct"
GEMMA = "google/gemma-3-270m"
MISSING = "test/missing"
CORRUPT = "test/corrupt"
# The demo model once more, for tests that compare answers. With the ordinary model two answers to the same request may differ by
# the kernels' noise, which depends on the sizes of the steps that computed them.
REPRODUCIBLE = "test/reproducible"

# Long enough for a busy machine; waits end much sooner if all is well.
PATIENCE = 120


def model(name, path, input_price=200, output_price=400, more=""):
    return f"""
[[models]]
id = "{name}"
input_price = {input_price}
output_price = {output_price}
{more}
[[models.engines]]
kind = "llama"
path = "{path}"
"""


def wait_until(condition, what, seconds=PATIENCE):
    """Waits for the condition, and returns its first true value. Fails when the time is up."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain: {what}"
        threading.Event().wait(0.02)
    return value


def environment(extra=None):
    """This process's environment, without settings from a developer's shell."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WEIR_")}
    return clean | (extra or {})


class Weir:
    """A directory with a config and data, the command line for it, and sometimes a server."""

    def __init__(self, directory, models, settings=""):
        self.directory = Path(directory)
        self.config = self.directory / "weir.toml"
        self.config.write_text(f'listen = "127.0.0.1:0"\ndemo = true\n{settings}\n{models}')
        # The command that runs the program, if any, such as one that enters a namespace.
        self.prefix = []
        self.process = None
        self.key = None
        self.account = "demo"

    # The command line

    def run(self, *arguments, check=True, env=None, input=None):
        """Runs `weir ARGUMENTS`, and returns its output, or without `check` the whole result."""
        done = subprocess.run(
            [*self.prefix, BINARY, *arguments],
            cwd=self.directory, env=environment(env), input=input, text=True, capture_output=True, timeout=PATIENCE,
        )
        if check:
            assert done.returncode == 0, f"weir {' '.join(arguments)}: {done.returncode}\n{done.stderr}"
            return done.stdout
        return done

    def data(self, *arguments):
        return json.loads(self.run(*arguments, "--json"))

    def new_key(self, name, credit):
        """Makes an account with this credit, and a key for it."""
        self.run("account", "add", name, "--credit", str(credit))
        return self.data("key", "add", name)

    def usage(self, account):
        return self.data("usage", account, "--limit", "100000")

    def balance(self, account):
        return next(row for row in self.data("account", "list") if row["name"] == account)

    # The server

    def start(self, env=None):
        self.log = self.directory / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, BINARY, "serve", "--json"],
                cwd=self.directory, env=environment(env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log,
            )
        self.lines = queue.Queue()
        threading.Thread(target=self._read, args=(self.process, self.lines), daemon=True).start()
        self.first = None
        while (event := self.next_event())["event"] != "ready":
            assert event["event"] == "first_start", event
            self.first = event
            self.key = event["key"]
        self.url = event["url"]
        return self

    def _read(self, process, lines):
        for line in process.stdout:
            lines.put(line)
        lines.put(None)

    def next_event(self):
        line = self.lines.get(timeout=PATIENCE)
        assert line is not None, f"weir serve ended with {self.process.wait()}:\n{self.log.read_text()[-4000:]}"
        return json.loads(line)

    def client(self, key=None, **options):
        options = {"max_retries": 0, "timeout": PATIENCE} | options
        return OpenAI(base_url=f"{self.url}/v1", api_key=key or self.key, **options)

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self):
        return self.process.wait(timeout=PATIENCE)

    def stop(self):
        if self.process and self.process.poll() is None:
            # A server that a test has frozen couldn't stop otherwise.
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(timeout=PATIENCE)
            finally:
                self.process.kill()
