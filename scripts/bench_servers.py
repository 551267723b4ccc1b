"""The servers that `bench.py` measures. Each is started for one load, and stopped after it."""

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODEL_FILE = ROOT / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
THREADS = int(os.environ.get("THREADS") or len(os.sched_getaffinity(0)))
# Far more than needed: a model of this size is loaded in a second or two.
PATIENCE_SECONDS = 60


def peer(program):
    """The path of a program that llama_server.py has built."""
    home = subprocess.run([sys.executable, ROOT / "scripts/llama_server.py", "--print"], stdout=subprocess.PIPE, text=True)
    path = Path(home.stdout.strip()) / program
    if not path.exists():
        sys.exit(f"bench: {path} is missing: scripts/llama_server.py builds it")
    return path


def environment():
    """This process's environment, without settings from a developer's shell."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("WEIR_", "LLAMA_", "OMP_"))}


class Server:
    """A server process with a directory of its own, for the time of a `with` block."""

    process = None
    # Additional environment variables.
    variables = {}

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="weir-bench-")
        self.log = Path(self.directory.name) / "log"
        try:
            self.start(Path(self.directory.name))
            self.wait_until_healthy()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                sys.exit(f"bench: {self.name} did not stop")
        self.directory.cleanup()

    def run(self, command, directory, stdout=None):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                env=environment() | self.variables,
                stdin=subprocess.DEVNULL,
                stdout=stdout or log,
                stderr=log,
            )

    def wait_until_healthy(self):
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.is_healthy():
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"bench: {self.name} does not start:\n{self.last_words()}")
            time.sleep(0.05)

    def is_healthy(self):
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def check(self):
        """Exits if the server doesn't run as it is to be measured."""

    def last_words(self):
        return self.log.read_text(errors="replace")[-3000:]


class Weir(Server):
    """`weir serve` as it is used: with keys, credit and a ledger that is written to disk."""

    model = "bench/model"
    key = None

    def __init__(self, settings="", name="weir", program=ROOT / "target/release/weir", threads=THREADS, variables=None):
        self.settings, self.name, self.program, self.threads = settings, name, program, threads
        self.variables = variables or {}

    def start(self, directory):
        (directory / "weir.toml").write_text(
            f'listen = "127.0.0.1:0"\ndemo = true\n\n[[models]]\nid = "{self.model}"\ninput_price = 200\noutput_price = 400\n\n'
            f'[[models.engines]]\nkind = "llama"\npath = "{MODEL_FILE}"\nthreads = {self.threads}\n{self.settings}\n'
        )
        self.run([self.program, "serve", "--json"], directory, subprocess.PIPE)
        for line in self.process.stdout:
            event = json.loads(line)
            self.key = event.get("key") or self.key
            if event["event"] == "ready":
                self.url = event["url"]
                return
        sys.exit(f"bench: weir does not start:\n{self.last_words()}")

    def check(self):
        if 'optimize = "speed"' in self.settings and "serving a requantized copy" not in self.log.read_text():
            sys.exit(f"bench: weir serves the file as it is:\n{self.last_words()}")


class LlamaServer(Server):
    name = "llama-server"
    model = "bench"
    key = "none"

    def __init__(self, flags):
        self.flags = flags

    def start(self, directory):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        common = f"--host 127.0.0.1 --port {port} -t {THREADS} -tb {THREADS} --no-ui"
        self.run([peer("llama-server"), "-m", MODEL_FILE, *shlex.split(f"{common} {self.flags}")], directory)


class BatchedBench:
    """llama.cpp's own benchmark of its kernels: no server, no sampling."""

    def run(self, sequences, prompt_tokens, output_tokens):
        cells = sequences * (prompt_tokens + output_tokens + 256)
        flags = f"-t {THREADS} -tb {THREADS} -c {cells} -npp {prompt_tokens} -ntg {output_tokens} -npl {sequences}"
        command = [peer("llama-batched-bench"), "-m", MODEL_FILE, *flags.split(), "--output-format", "jsonl"]
        done = subprocess.run(command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode != 0 or not lines:
            sys.exit(f"bench: llama-batched-bench failed:\n{done.stderr[-3000:]}")
        figures = json.loads(lines[-1])
        return {"tokens_per_second": sequences * output_tokens / figures["t"], **figures}
