"""A log that can't be written ends no answer, no start and no stop."""

import json
import os
import pty
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from raw import NO_MODEL, ask
from weir import BINARY, DEMO, PATIENCE, environment, wait_until


class Broken:
    """A stderr for the server, and a way to break it while the server runs."""

    def __init__(self, kind):
        self.kind = kind
        self.reader = None
        if kind == "a pipe without a reader":
            self.reader, self.writer = os.pipe()
        elif kind == "a pipe that nothing reads":
            self.reader, self.writer = os.pipe()
        elif kind == "a full disk":
            self.writer = os.open("/dev/full", os.O_WRONLY)
        elif kind == "a terminal that vanished":
            self.reader, self.writer = pty.openpty()
        elif kind == "closed":
            self.writer = None

    def pass_on(self):
        return {} if self.writer is None else {"stderr": self.writer}

    def breaks(self):
        if self.kind in ("a pipe without a reader", "a terminal that vanished"):
            os.close(self.reader)
            self.reader = None

    def close(self):
        for end in (self.reader, self.writer):
            if end is not None:
                os.close(end)


@pytest.mark.parametrize("kind, form", [
    ("a pipe without a reader", "text"),
    ("a pipe that nothing reads", "json"),
    ("a full disk", "text"),
    ("a terminal that vanished", "json"),
    ("closed", "text"),
])
def test_a_log_that_fails_ends_nothing(make_weir, kind, form):
    # Everything is logged, so that a pipe is soon full.
    weir = make_weir(settings=f'[log]\nformat = "{form}"\nfilter = "trace"\n')
    broken = Broken(kind)
    command = [BINARY, "serve", "--json"]
    if kind == "closed":
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    weir.process = subprocess.Popen(
        command, cwd=weir.directory, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        start_new_session=True, **broken.pass_on(),
    )
    events = (json.loads(line) for line in weir.process.stdout)
    weir.key = next(events)["key"]
    weir.url = next(events)["url"]
    broken.breaks()
    client = weir.client()
    answers = [client.completions.create(model=DEMO, prompt="x", max_tokens=3) for _ in range(3)]
    stream = list(client.completions.create(model=DEMO, prompt="x", max_tokens=3, stream=True))
    assert all(answer.usage.completion_tokens for answer in answers) and stream[-1].choices[0].finish_reason
    for _ in range(10):
        assert ask(weir, "GET", "/ready")[0] == 200
        assert ask(weir, "POST", "/v1/chat/completions", "sk_no_key", {})[0] == 401
        assert ask(weir, "GET", "/nowhere")[0] == 404
    weir.signal(signal.SIGTERM)
    assert weir.wait() == 0
    rows = weir.usage("demo")
    assert len(rows) == 4 and {row["outcome"] for row in rows} == {"success"}
    broken.close()


def naps_of_the_log(pid):
    """How often the log's writing thread has slept; 0 while it is writing."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        if (task / "comm").read_text().strip() == "weir-log":
            facts = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines() if ":\t" in line)
            return int(facts["voluntary_ctxt_switches"]) if facts["State"].startswith("S") else 0
    raise AssertionError("no thread writes the log")


def test_lines_that_were_lost_are_counted_when_the_log_works_again(make_weir):
    weir = make_weir(models=NO_MODEL, settings='[log]\nfilter = "debug"\n')
    log = weir.directory / "pipe"
    os.mkfifo(log)
    reader = os.open(log, os.O_RDONLY | os.O_NONBLOCK)
    with open(log, "wb") as stderr:
        weir.process = subprocess.Popen(
            [BINARY, "serve", "--json"], cwd=weir.directory, env=environment(), stdout=subprocess.PIPE, stderr=stderr,
        )
    weir.key = json.loads(weir.process.stdout.readline())["key"]
    weir.url = json.loads(weir.process.stdout.readline())["url"]
    os.close(reader)
    before = wait_until(lambda: naps_of_the_log(weir.process.pid), "the lines before it are done")
    assert ask(weir, "GET", "/nowhere")[0] == 404
    wait_until(lambda: naps_of_the_log(weir.process.pid) > before, "the line has been tried, in vain")
    # A reader opens the pipe again.
    lines = []
    with open(log, "rb") as again:
        threading.Thread(target=lambda: lines.extend(again), daemon=True).start()
        assert ask(weir, "GET", "/somewhere")[0] == 404
        wait_until(lambda: any(b"lines of the log were lost" in line for line in lines), "the loss is told")
        weir.signal(signal.SIGTERM)
        assert weir.wait() == 0
        wait_until(lambda: any(b"draining" in line for line in lines), "the last lines come")
    assert not any(b"/nowhere" in line for line in lines) and any(b"/somewhere" in line for line in lines)


def test_stdout_that_nobody_reads_ends_nothing(make_weir):
    weir = make_weir(models=NO_MODEL)
    reader, writer = os.pipe()
    weir.log = weir.directory / "log"
    with weir.log.open("wb") as log:
        weir.process = subprocess.Popen(
            [BINARY, "serve", "--json", "--listen", "127.0.0.1:0"],
            cwd=weir.directory, env=environment(), stdout=writer, stderr=log,
        )
    os.close(writer)
    os.close(reader)
    secret = weir.directory / "data" / "demo-key"
    wait_until(secret.exists, "the key is in a file, since nobody read stdout")
    wait_until(lambda: "events were lost" in weir.log.read_text(), "it goes on")
    weir.signal(signal.SIGTERM)
    assert weir.process.wait(timeout=PATIENCE) == 0
