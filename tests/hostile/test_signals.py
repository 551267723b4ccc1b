"""Signals that are not a stop must not be one."""

import signal

from weir import DEMO


def test_sigterm_ends_in_order(make_weir):
    weir = make_weir().start()
    assert weir.client().completions.create(model=DEMO, prompt="x", max_tokens=3).usage
    weir.signal(signal.SIGTERM)
    assert weir.wait() == 0
