#!/usr/bin/env python3
"""Records how Hugging Face's `transformers` renders chat templates, for the Rust tests to compare with.

    pip install transformers==5.23.0 jinja2==3.1.6
    record.py                    the templates of this directory: NAME.jinja → NAME.json
    record.py --fetch DIRECTORY  all templates of the packages below, and their renderings, into
                                 DIRECTORY; `WEIR_TEST_TEMPLATES=DIRECTORY` lets the tests check them
    record.py DIRECTORY          the same, with the templates that are there

`cases.json` has the conversations, as callers send them. The arguments of calls are given to a
template as what their JSON stands for. Where a template may need something else, variants of the
case are recorded too: `/text` has the arguments as text, `/empty` an empty text for no content,
`/system` a system message for the developer's.
"""

import argparse
import copy
import itertools
import json
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from datetime import datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Where templates are, by package: none of their code is run.
PACKAGES = {
    "trl==1.16.0": "trl/chat_templates/",
    "axolotl==0.19.0": "axolotl/utils/chat_templates/templates/",
    "llama-cpp-python==0.3.36": "/vendor/llama.cpp/models/templates/",
}
NOW = datetime(2026, 11, 22, 13, 5, 9)
TOKENS = {"bos_token": "<bos>", "eos_token": "<eos>"}


def main():
    parser = argparse.ArgumentParser(description="record renderings of chat templates")
    parser.add_argument("directory", type=Path, nargs="?", default=HERE)
    parser.add_argument("--fetch", action="store_true", help="fetch the packages' templates into it first")
    arguments = parser.parse_args()
    directory = arguments.directory
    if arguments.fetch:
        fetch(directory)
    cases = dict(variants(json.loads((HERE / "cases.json").read_text())))
    render = transformers()
    for template in sorted(directory.glob("*.jinja")):
        source = template.read_text()
        renderings = {name: render(source, case) for name, case in cases.items()}
        write(template.with_suffix(".json"), renderings)


def variants(cases):
    """Each case as transformers gets it, and each of its variants."""
    for name, case in cases.items():
        messages = case["messages"]
        possible = {
            "text": any("tool_calls" in message for message in messages),
            "empty": any(message["content"] is None for message in messages),
            "system": any(message["role"] == "developer" for message in messages),
        }
        possible = [variant for variant, is_possible in possible.items() if is_possible]
        for chosen in itertools.chain.from_iterable(
            itertools.combinations(possible, count) for count in range(len(possible) + 1)
        ):
            yield "/".join((name, *chosen)), vary(copy.deepcopy(case), chosen)


def vary(case, chosen):
    for message in case["messages"]:
        if "empty" in chosen and message["content"] is None:
            message["content"] = ""
        if "system" in chosen and message["role"] == "developer":
            message["role"] = "system"
        if "text" not in chosen:
            for call in message.get("tool_calls", []):
                call["function"]["arguments"] = meaning(call["function"]["arguments"])
    return case


def meaning(arguments):
    """An object, if the JSON stands for one; else the text."""
    try:
        value = json.loads(arguments)
    except ValueError:
        return arguments
    return value if isinstance(value, dict) else arguments


def transformers():
    """What renders: the real thing, with a clock that stands still."""
    import jinja2
    from transformers.utils import chat_template_utils

    class Clock(datetime):
        @classmethod
        def now(cls, tz=None):
            return NOW

    chat_template_utils.datetime = Clock

    def render(source, case):
        try:
            texts, _ = chat_template_utils.render_jinja_template(
                [case["messages"]],
                tools=case.get("tools"),
                chat_template=source,
                add_generation_prompt=case.get("add_generation_prompt", True),
                **TOKENS,
                **case.get("kwargs", {}),
            )
            return texts[0]
        except Exception as error:
            # `raise_exception` is the only one that raises exactly this class.
            said = type(error) is jinja2.exceptions.TemplateError
            return {"refused": str(error)} if said else {"failed": f"{type(error).__name__}: {error}"}

    return render


def write(path, renderings):
    """One case a line, so that a change shows; what an earlier case says too isn't repeated."""
    lines, first = [], {}
    for name, rendering in renderings.items():
        same = first.setdefault(json.dumps(rendering), name)
        value = rendering if same == name else {"same": same}
        lines.append(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=True)}")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def fetch(directory):
    directory.mkdir(parents=True, exist_ok=True)
    for package, folder in PACKAGES.items():
        with tempfile.TemporaryDirectory() as scratch:
            kind = "--only-binary" if "llama" not in package else "--no-binary"
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", kind, ":all:"]
            subprocess.run([*command, "--dest", scratch, package], check=True)
            prefix = package.split("==")[0]
            for name, text in templates(next(Path(scratch).iterdir()), folder):
                (directory / f"{prefix}-{name}").write_text(text)


def templates(archive, folder):
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            members = {name: wheel.read(name) for name in wheel.namelist() if folder in name and name.endswith(".jinja")}
    else:
        with tarfile.open(archive) as sdist:
            names = [name for name in sdist.getnames() if folder in name and name.endswith(".jinja")]
            members = {name: sdist.extractfile(name).read() for name in names}
    return [(Path(name).name, content.decode()) for name, content in members.items()]


if __name__ == "__main__":
    main()
