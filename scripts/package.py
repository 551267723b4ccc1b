#!/usr/bin/env python3
"""Builds target/package: `weir`, and in `lib/` llama.cpp's libraries with kernels for each kind of processor.

`make package` calls it. This `weir` loads the best kernels that work on its machine when it starts. At the end a list of the
kernels that work here is printed. The directory can be moved as a whole.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "target/package"
# Not target/release: the plain program stays where it is.
WORKS = "these kernels work"
BUILD = "cargo build --locked --release -p weir --features dispatch --target-dir target/dispatch --message-format json-render-diagnostics"


def main():
    program, installed, licence = build()
    if PACKAGE.exists():
        shutil.rmtree(PACKAGE)
    libraries = PACKAGE / "lib"
    libraries.mkdir(parents=True)
    shutil.copy2(program, PACKAGE / "weir")
    for library in installed:
        # Symbolic links are copied as links.
        shutil.copy2(library, libraries / library.name, follow_symlinks=False)
    shutil.copy2(ROOT / "LICENSE", PACKAGE)
    shutil.copy2(licence, libraries / "LICENSE.llama.cpp")
    verdicts = {library.name: verdict(library) for library in sorted(libraries.glob("libggml-cpu-*.so"))}
    for name, words in verdicts.items():
        print(f"{name:34}{words}")
    if WORKS not in verdicts.values():
        sys.exit("package: no kernels work on this machine")
    print(f"package: {PACKAGE.relative_to(ROOT)}", file=sys.stderr)


def build():
    """Builds, and returns the program, the libraries that llama.cpp's build installed, and its licence."""
    print("package: building; the first time a set of kernels for each kind of processor: 20 minutes on two cores", file=sys.stderr)
    done = subprocess.run(BUILD.split(), cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit("package: it does not build")
    messages = [json.loads(line) for line in done.stdout.splitlines()]
    program = next(m["executable"] for m in messages if m["reason"] == "compiler-artifact" and m["target"]["name"] == "weir" and m["executable"])
    out = next(Path(m["out_dir"]) for m in messages if m["reason"] == "build-script-executed" and "llama-cpp-sys-2" in m["package_id"])
    installed = [*out.glob("lib*/lib*.so*"), *out.glob("backends/*.so")]
    manifest = next(Path(m["manifest_path"]) for m in messages if m["reason"] == "compiler-artifact" and m["target"]["name"] == "llama_cpp_sys_2")
    return program, installed, manifest.parent / "llama.cpp/LICENSE"


def verdict(library):
    done = subprocess.run([PACKAGE / "weir", "probe-kernels", library], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode < 0:
        return f"ends with signal {-done.returncode}"
    return (done.stdout + done.stderr).strip() or f"exit status {done.returncode}"


if __name__ == "__main__":
    main()
