"""Runs the examples of the documentation as they are written.

A fenced block of Python or bash below the line `<!-- test -->` is an example.
"""

import re
import subprocess
import sys

import pytest

from weir import DEMO, DEMO_FILE, PATIENCE, ROOT, Weir, environment, model

EXAMPLE = re.compile(r"<!-- test -->\n```(python|bash)\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(language, code, id=f"{paper}-{number}-{language}")
    for paper in ("README.md", "docs/api.md")
    for number, (language, code) in enumerate(EXAMPLE.findall((ROOT / paper).read_text()), 1)
]


def test_there_are_the_four_classic_examples():
    found = EXAMPLE.findall((ROOT / "docs/api.md").read_text())
    assert sorted(language for language, _ in found[:4]) == ["bash", "bash", "python", "python"]


@pytest.fixture(scope="module")
def weir(tmp_path_factory):
    """A server whose answers are short: some examples set no length."""
    models = model(DEMO, DEMO_FILE, more="max_output_tokens = 200")
    server = Weir(tmp_path_factory.mktemp("docs"), models).start()
    yield server
    server.stop()


@pytest.mark.parametrize("language, code", EXAMPLES)
def test_example(weir, language, code):
    command = [sys.executable, "-c"] if language == "python" else ["bash", "-euo", "pipefail", "-c"]
    code = code.replace("http://127.0.0.1:8080", weir.url)
    done = subprocess.run(
        [*command, code], env=environment({"WEIR_API_KEY": weir.key}), cwd=weir.directory,
        capture_output=True, text=True, timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and '"error"' not in done.stdout, done.stdout
