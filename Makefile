# `make serve` sets everything up and serves; `make help` lists the other targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help serve models build test fmt clippy doc unit torture e2e hostile documents schemas reference test-clients bench bench-threads package test-package docs lint clean

# With SOURCE_DATE_EPOCH set, ggml silently builds for SSE2 only.
unexport SOURCE_DATE_EPOCH
# The binary must not use features that only the building machine has (AMX, for one, which faults on some machines).
unexport RUSTFLAGS CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_RUSTFLAGS
# The binary must be at the path that the README names.
unexport CARGO_TARGET_DIR CARGO_BUILD_TARGET_DIR CARGO_BUILD_TARGET

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/weir
export PATH := $(HOME)/.cargo/bin:$(CACHE)/bin:$(PATH)

DEMO := models/SmolLM2-135M-Instruct.Q4_1.gguf
GEMMA := models/gemma-3-270m-q4_k_m.gguf
# Crates that need llama.cpp are checked and tested in release mode only: it is built once.
KERNELS := --release -p weir-llama
PLAIN := --workspace --exclude weir-llama --no-default-features

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 22

serve: $(DEMO) build ## set up what is missing, fetch the demo model, build, serve on 127.0.0.1:8080
	exec target/release/weir serve --config weir.toml

models: $(DEMO) $(GEMMA) ## fetch all models: the demo model and Gemma 3 270M

build: ## set up what is missing, build target/release/weir
	@scripts/setup.sh build
	@[[ -e target/release/weir ]] || echo "building; the first time llama.cpp's kernels too: 5 to 10 minutes" >&2
	cargo build --locked --release -p weir

test: fmt clippy doc unit e2e hostile reference test-clients ## all that CI checks

fmt: ## is everything formatted?
	@scripts/setup.sh build
	cargo fmt --all --check

clippy: ## lints, as errors
	@scripts/setup.sh build
	cargo clippy --locked $(PLAIN) --all-targets -- -D warnings
	cargo clippy --locked $(KERNELS) -p weir --all-targets -- -D warnings

doc: ## the crates' documentation, warnings as errors
	@scripts/setup.sh build
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(PLAIN) --no-deps --document-private-items
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(KERNELS) --no-deps --document-private-items

unit: $(DEMO) $(GEMMA) ## all tests in Rust
	@scripts/setup.sh test
	cargo nextest run --locked $(PLAIN) --profile ci
	WEIR_TEST_MODELS="$(CURDIR)/models" cargo nextest run --locked $(KERNELS) --profile ci

torture: ## processes die 1,000 times on SQLite and 300 times on PostgreSQL; the books are checked each few times
	@scripts/setup.sh test
	WEIR_TORTURE_KILLS=1000 cargo nextest run --locked -p weir-testkit --profile torture --no-capture on_sqlite
	WEIR_TORTURE_KILLS=300 cargo nextest run --locked -p weir-testkit --profile torture --no-capture on_postgres

e2e: $(DEMO) $(GEMMA) build ## the real binary with the real models, driven by OpenAI's Python client and curl
	@scripts/setup.sh test
	$$(scripts/venv.sh)/bin/python -m pytest tests/e2e --ignore tests/e2e/test_documents.py

hostile: $(DEMO) build ## what must not bring the real binary down: damaged files, full disks, wrong clocks, signals; under three minutes
	@scripts/setup.sh test
	$$(scripts/venv.sh)/bin/python -m pytest tests/hostile

documents: $(DEMO) $(GEMMA) build ## 200 documents that a schema allows, at a high temperature, over HTTP: two to three minutes
	@scripts/setup.sh test
	$$(scripts/venv.sh)/bin/python -m pytest tests/e2e/test_documents.py

schemas: ## public JSON Schemas: how many are accepted and enforced, and whether random documents are valid; some minutes
	@scripts/setup.sh clients
	$$(scripts/venv.sh)/bin/python scripts/schemas.py

reference: $(DEMO) $(GEMMA) build ## every sampling parameter against a reference in numpy, which shares no code
	@scripts/setup.sh test
	$$(scripts/venv.sh)/bin/python -m pytest tests/reference

test-clients: $(DEMO) build ## the clients that people use, Python and Node, against the real binary
	@scripts/setup.sh clients
	@scripts/clients.sh

bench: $(DEMO) build ## Weir beside llama-server, in turns: half an hour on an idle machine; ROUNDS=1, ONLY=shared, FORCE=1
	@scripts/llama_server.py
	cargo build --locked --release -p weir-testkit --bin bench-load
	@scripts/bench.py

bench-threads: $(DEMO) build ## the kernels' threads, ggml's own and OpenMP's, idle and beside a busy process: 20 minutes; ROUNDS=1, FORCE=1
	cargo build --locked --release -p weir --features openmp --target-dir target/openmp
	cargo build --locked --release -p weir-testkit --bin bench-load
	@scripts/bench_threads.py

package: ## target/package: weir with kernels for each kind of processor, which may be faster here; 20 minutes the first time
	@scripts/setup.sh build
	@scripts/package.py

test-package: package ## does the package work, also where some of its kernels don't?
	@scripts/setup.sh test
	$$(scripts/venv.sh)/bin/python -m pytest tests/package

docs: ## write docs/config.md anew
	UPDATE_DOCS=1 cargo test --locked -q -p weir --no-default-features docs_config

lint: ## licences, sources and unused dependencies, if cargo-deny and cargo-machete are installed
	@if command -v cargo-deny >/dev/null; then cargo deny check bans licenses sources; else echo "cargo-deny is not installed"; fi
	@if command -v cargo-machete >/dev/null; then cargo machete; else echo "cargo-machete is not installed"; fi

clean: ## remove what was built here; models, data and shared dependencies stay
	rm -rf target

$(DEMO):
	@scripts/setup.sh build
	@scripts/models.py demo

$(GEMMA):
	@scripts/setup.sh build
	@scripts/models.py gemma
