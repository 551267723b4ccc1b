"""Runs the tests of the Node clients by `node --test`, against the same server and with the same table of refusals."""

import json
import os
import subprocess
from pathlib import Path

from refusals import REFUSALS
from weir import DEMO

HERE = Path(__file__).parent


def test_node(server, make_refused):
    """Runs all test files in parallel, each in a process of its own."""
    refusals = []
    for refused in map(make_refused, REFUSALS):
        expected = vars(refused.expected) | {"presencePenalty": refused.presence_penalty}
        refusals.append(expected | {"url": refused.url, "key": refused.key})
    told = {"url": f"{server.url}/v1", "key": server.key, "model": DEMO, "refusals": refusals}
    files = sorted(path.name for path in HERE.glob("*.test.js"))
    done = subprocess.run(
        ["node", "--test", *files],
        cwd=HERE, env=os.environ | {"WEIR_CLIENTS": json.dumps(told)}, text=True, capture_output=True, timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " fail 0\n" in done.stdout and " pass 0\n" not in done.stdout
