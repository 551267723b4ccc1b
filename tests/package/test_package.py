"""`make package`: the directory works anywhere, and kernels that don't work are passed over."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/e2e"))
from weir import environment  # noqa: E402

# A library that claims to fit a processor, but whose first call faults.
FAULTS = "int ggml_backend_score(void) { return 1; }\nvoid *ggml_backend_init(void) { __builtin_trap(); }\n"


@pytest.fixture
def package(tmp_path):
    return Path(shutil.copytree(ROOT / "target/package", tmp_path / "elsewhere", symlinks=True))


def kernels(package):
    """The kernels that `weir doctor` reports."""
    command = [package / "weir", "doctor", "--json"]
    done = subprocess.run(command, cwd=package, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return next(check for check in json.loads(done.stdout) if check["check"] == "kernels")


def test_it_computes_wherever_it_is(package):
    found = kernels(package)
    assert found["verdict"] == "ok" and "SSE3 = 1" in found["detail"], found


def test_kernels_that_fault_or_are_damaged_are_passed_over(package):
    libraries = package / "lib"
    best = kernels(package)
    (libraries / "faults.c").write_text(FAULTS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", libraries / "libggml-cpu-sapphirerapids.so", libraries / "faults.c"], check=True)
    (libraries / "libggml-cpu-zen4.so").write_text("damaged")
    assert kernels(package) == best
    probe = [package / "weir", "probe-kernels", libraries / "libggml-cpu-sapphirerapids.so"]
    done = subprocess.run(probe, stdin=subprocess.DEVNULL, capture_output=True)
    assert done.returncode < 0 and not list(package.glob("core*")), done


def test_without_kernels_the_reason_is_said(package):
    for library in (package / "lib").glob("libggml-cpu-*.so"):
        library.unlink()
    (package / "lib/libggml-cpu-haswell.so").write_text("damaged")
    found = kernels(package)
    assert found["verdict"] == "wrong" and "libggml-cpu-haswell.so" in found["detail"] and "failed to load" in found["detail"], found
