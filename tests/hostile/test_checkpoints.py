"""A database that hangs, moves or is full while streams run: a crash loses seconds of an answer, not all of it."""

import os
import shutil
import signal
import sqlite3
import threading
import time

import openai

from weir import DEMO, PATIENCE, wait_until

# Seconds of an answer that a crash may lose: a checkpoint waits for the database for a second, then it is kept beside it
# when the next one is due. A busy machine needs some more.
LOST_MAX = 4
ENDLESS = dict(model=DEMO, prompt="A long story:", temperature=1, max_tokens=4000, stream=True)


class Stream(threading.Thread):
    """Reads an answer, and remembers when each of its tokens came."""

    def __init__(self, weir, seed=1):
        super().__init__(daemon=True)
        self.chunks = weir.client().completions.create(**ENDLESS, seed=seed, extra_body={"ignore_eos": True})
        self.times, self.error = [], None
        self.came = threading.Condition()
        self.start()

    def run(self):
        try:
            for _ in self.chunks:
                with self.came:
                    self.times.append(time.monotonic())
                    self.came.notify_all()
        except Exception as error:  # noqa: BLE001 - whatever ended it is looked at by the test
            self.error = error
        with self.came:
            self.came.notify_all()

    def wait_for(self, tokens=0, seconds=0):
        """Waits for so many tokens, and until so much time has passed since then by the clock of the stream."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.times) >= max(tokens, 1), PATIENCE)
            begun = self.times[-1]
            assert self.came.wait_for(lambda: self.times[-1] - begun >= seconds or self.error, PATIENCE)

    def before(self, moment):
        return sum(came < moment for came in self.times)




def lock(weir):
    """Another process writes to the database, and doesn't end."""
    other = sqlite3.connect(weir.directory / "data" / "weir.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def killed(weir):
    """When the server was killed."""
    weir.signal(signal.SIGKILL)
    moment = time.monotonic()
    weir.wait()
    return moment


def charged(weir):
    [row] = weir.usage("demo")
    return row["completion_tokens"]


def most(stream):
    """Tokens of a stream: one for each chunk, and some that complete no character."""
    return 1.1 * len(stream.times) + 5


def test_a_locked_database(make_weir):
    weir = make_weir().start()
    stream = Stream(weir)
    stream.wait_for(tokens=5)
    other = lock(weir)
    stream.wait_for(seconds=LOST_MAX + 1)
    moment = killed(weir)
    other.close()
    weir.start()
    assert stream.before(moment - LOST_MAX) <= charged(weir) <= most(stream)
    assert weir.run("ledger", "verify") == "the books balance\n"


def test_a_full_reserve_ends_the_other_streams(make_weir):
    weir = make_weir(settings="[usage]\nunsettled_requests_max = 1\n").start()
    streams = [Stream(weir, seed) for seed in range(3)]
    for stream in streams:
        stream.wait_for(tokens=2)
    other = lock(weir)

    def cut():
        return [stream for stream in streams if isinstance(stream.error, openai.APIError)]

    wait_until(lambda: len(cut()) == 2, "two of three streams end")
    [kept] = [stream for stream in streams if stream not in cut()]
    kept.wait_for(tokens=len(kept.times) + 5)
    assert kept.error is None
    # A regular stop would wait until the stream has ended.
    killed(weir)
    other.close()


def test_a_directory_that_was_moved_away(make_weir):
    weir = make_weir().start()
    stream = Stream(weir)
    stream.wait_for(tokens=5)
    data, away = weir.directory / "data", weir.directory / "away"
    os.rename(data, away)
    stream.join(PATIENCE)
    assert isinstance(stream.error, openai.APIError), "the answer ends, since nothing can be kept"
    assert stream.times[-1] - stream.times[0] < PATIENCE / 2
    killed(weir)
    if data.exists():
        shutil.rmtree(data)
    os.rename(away, data)
    weir.start()
    # The file beside the database was written all the same, since it has a name somewhere.
    assert len(stream.times) - 1 <= charged(weir) <= most(stream)
