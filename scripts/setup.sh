#!/usr/bin/env bash
# Installs the missing packages and tools for a build (`setup.sh build`), the tests (`setup.sh test`) or the tests with
# real clients (`setup.sh clients`). If nothing is missing it does nothing: no network, no apt.
set -euo pipefail

say() { printf 'setup: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

# libclang of the development package: the bare library lacks clang's own headers, and libclang-cpp is another library.
have_libclang() {
    [[ -n ${LIBCLANG_PATH:-} ]] && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang.so' >/dev/null && return 0
    [[ -e /usr/lib/libclang.so || -e /usr/lib64/libclang.so ]]
}

# Valkey or Redis. Debian's packages of tools contain the server too, under the name of the program that checks its files,
# and no service that would be started.
have_store() {
    have valkey-server || have redis-server || have valkey-check-rdb || have redis-check-rdb
}

store_package() {
    local found
    found=$(apt-cache search --names-only '^valkey-tools$' 2>/dev/null) || true
    if [[ -n $found ]]; then echo valkey-tools; else echo redis-tools; fi
}

# Debian's names of the missing packages.
missing_packages() {
    have c++ || echo g++
    have cmake || echo cmake
    have make || echo make
    have_libclang || echo libclang-dev
    have python3 || echo python3
    python3 -c 'import importlib.util as u; exit(u.find_spec("pip") is None)' 2>/dev/null || echo python3-pip
    [[ $1 != build ]] || return 0
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || echo python3-venv
    have curl || echo curl
    compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || have initdb || echo postgresql
    have_store || store_package
    have faketime || echo faketime
    [[ $1 == clients ]] || return 0
    have node || echo nodejs
    have npm || echo npm
}

as_root() {
    if [[ $(id -u) == 0 ]]; then
        "$@"
    else
        sudo "$@"
    fi
}

# True for root, with sudo without a password, or with sudo on a terminal, where a password can be typed.
can_be_root() {
    [[ $(id -u) == 0 ]] || { have sudo && { sudo -n true 2>/dev/null || [[ -t 0 ]]; }; }
}

# Keeps Debian's package from making and starting a cluster: the tests start their own PostgreSQL.
forbid_postgres_cluster() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends postgresql-common
    as_root sed -Ei 's/^#?(create_main_cluster) .*/\1 = false/' /etc/postgresql-common/createcluster.conf
}

install_packages() {
    local packages=("$@")
    if have apt-get && can_be_root; then
        say "installing ${packages[*]}"
        as_root apt-get update -q || say "not all package lists could be updated"
        [[ " ${packages[*]} " != *" postgresql "* ]] || forbid_postgres_cluster
        as_root env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -q --no-install-recommends "${packages[@]}" && return 0
    fi
    say "this is missing and can't be installed from here: ${packages[*]}"
    say "on Debian or Ubuntu: sudo apt-get install ${packages[*]}"
    exit 1
}

# Checks Rust's version: that of a distribution is often too old, and ignores rust-toolchain.toml.
check_rust() {
    local needed found
    needed=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true
    if [[ -z $found || $(printf '%s\n' "$needed" "$found" | sort -V | head -n 1) != "$needed" ]]; then
        say "Rust $needed or newer is needed, found: ${found:-none}"
        say "install it with rustup (https://rustup.rs), then try again"
        exit 1
    fi
}

# cargo-nextest is built from source, since it runs every test: no prebuilt binary needs to be trusted. The debug build takes
# half the time, and nextest mostly waits for tests anyway.
nextest_version=0.9.143

install_nextest() {
    say "building cargo-nextest $nextest_version, which takes some minutes"
    cargo install cargo-nextest --locked --debug --version "$nextest_version" --root "$cache" \
        --no-default-features --features default-no-update
}

# Installs the Python packages of a list into a virtual environment that all checkouts share.
install_python_packages() {
    local requirements=$1 venv
    venv=$(scripts/venv.sh "$requirements")
    [[ ! -e $venv/ready ]] || return 0
    say "installing the Python packages of $requirements"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$requirements" </dev/null
    touch "$venv/ready"
}

# Does the same for Node. Node looks for packages beside the importing file, so a symbolic link leads to the shared ones.
install_node_packages() {
    local directory=tests/clients/node modules
    modules=$cache/node-$({ node --version; cat "$directory/package-lock.json"; } | sha256sum | cut -c 1-12)
    if [[ ! -e $modules/ready ]]; then
        say "installing the Node packages of $directory"
        rm -rf "$modules"
        mkdir -p "$modules"
        cp "$directory"/{package.json,package-lock.json,.npmrc} "$modules"
        npm ci --prefix "$modules" --ignore-scripts --silent </dev/null
        touch "$modules/ready"
    fi
    ln -sfn "$modules/node_modules" "$directory/node_modules"
}

# Checkouts share a build directory, in which cargo recognizes changed sources only by their time: the build of another
# checkout would pass for this one's. So when another checkout was the last to build, this one's sources are touched.
claim_build_directory() {
    local stamp="${CARGO_BUILD_BUILD_DIR:-${CARGO_HOME:-$HOME/.cargo}/weir-build}/checkout"
    [[ $(cat "$stamp" 2>/dev/null) == "$PWD" ]] && return 0
    mkdir -p "$(dirname "$stamp")"
    find crates -type f -exec touch {} +
    printf '%s\n' "$PWD" >"$stamp"
}

main() {
    local purpose=${1:?build, test or clients} packages
    check_rust
    mapfile -t packages < <(missing_packages "$purpose")
    [[ ${#packages[@]} == 0 ]] || install_packages "${packages[@]}"
    claim_build_directory
    case $purpose in
    build) ;;
    test)
        have cargo-nextest || install_nextest
        install_python_packages tests/e2e/requirements.txt
        ;;
    clients)
        install_python_packages tests/clients/openai-3/requirements.txt
        install_python_packages tests/clients/openai-2/requirements.txt
        install_node_packages
        ;;
    *)
        say "build, test or clients, not $purpose"
        exit 2
        ;;
    esac
}

cache="${XDG_CACHE_HOME:-$HOME/.cache}/weir"
cd "$(dirname "$0")/.."
main "$@"
