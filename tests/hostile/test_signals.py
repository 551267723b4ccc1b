"""Signals that don't mean stop are ignored or reload the config, and signals that do stop the server at any time."""

import signal
import subprocess
import threading
import time

from weir import BINARY, DEMO, environment

PROMPT = dict(model=DEMO, prompt="A long story:", temperature=1, logit_bias={"2": -100, "0": -100})


def test_streams_outlive_signals(make_weir):
    weir = make_weir(settings="[shutdown]\ngrace_seconds = 120\n").start()
    stream = weir.client().completions.create(**PROMPT, max_tokens=60, stream=True)
    chunks = [next(iter(stream))]
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGXFSZ,
                   signal.SIGVTALRM, signal.SIGPROF, signal.SIGIO, signal.SIGPWR, signal.SIGSTKFLT, signal.SIGXCPU,
                   *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)):
        weir.signal(number)
    weir.signal(signal.SIGQUIT)
    assert weir.next_event()["event"] == "draining"
    weir.signal(signal.SIGHUP)
    chunks += stream
    assert chunks[-1].choices[0].finish_reason == "length"
    assert weir.wait() == 0
    [row] = weir.usage("demo")
    assert (row["outcome"], row["completion_tokens"]) == ("success", 60)


def test_a_stop_during_the_start_is_one(make_weir):
    """A signal at many points of the start stops the server. Before there is a handler, it ends the process itself."""
    weir = make_weir()
    ended = []
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
    for step, number in enumerate(numbers * 5):
        process = subprocess.Popen(
            [BINARY, "serve"], cwd=weir.directory, env=environment({"WEIR_DEMO": "false"}),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        threading.Event().wait(0.025 * step)
        began = time.monotonic()
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
        ended.append((process.returncode, time.monotonic() - began))
        assert process.returncode in (0, -number), said.decode()
        assert b"panicked" not in said and b"SIGSEGV" not in said
    assert max(seconds for _, seconds in ended) < 10, ended
    assert 0 in [status for status, _ in ended], ended
    weir.start()
    assert weir.client().completions.create(model=DEMO, prompt="x", max_tokens=1).usage
