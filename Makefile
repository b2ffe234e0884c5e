# What a newcomer types; `make help` lists it. Demos and tests share one profile, so the world is built once, and it goes
# where cargo puts it: ./target, unless CARGO_TARGET_DIR says otherwise.
SHELL := /bin/bash
CARGO ?= cargo
TARGET = $(or $(CARGO_TARGET_DIR),target)
# With --workspace every target resolves the same features: what one has built the next one uses.
BUILD = dev/build --workspace --bin
BUILT = $(TARGET)/debug
RELEASED = $(TARGET)/release

.PHONY: gpu-programs help build dist demo demo-tensor demo-real test test-gpu bench bench-gpu fetch-models fmt clippy doc clean
.DEFAULT_GOAL := help

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

build: ## build the binary, optimised, to target/release/thalweg
	dev/install
	dev/build --release --workspace --bin thalweg

dist: build ## the stripped binary as dist/thalweg-VERSION-ARCH-linux.tar.zst with its checksum
	dev/dist $(RELEASED)/thalweg

# Without what it does not need (job files, tensors, Azure), in features that `test` finds again.
demo: ## the main job on embedded clusters, through an outage and a kill -9
	dev/install
	dev/build -p thalweg-examples --no-default-features --bin demo
	$(BUILT)/demo

demo-tensor: ## near-duplicates and nearest topics of package descriptions from Kafka, with real MiniLM weights (91 MB, fetched once)
	dev/install
	$(BUILD) demo_tensor
	set -o pipefail; model=$$(dev/minilm fetch | tail -1) && $(BUILT)/demo_tensor "$$model"

demo-real: ## the same on two real Kafka brokers and Azurite
	dev/install services
	$(BUILD) demo
	$(BUILT)/demo --real

test: ## formatting, lints, documentation, every test
	dev/install services
	dev/nvrtc fetch
	dev/requirements
	dev/rocksdb >/dev/null
	dev/feature-pins/check
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	$(CARGO) test --workspace --no-fail-fast

bench: ## the benchmarks, to a table and benches/out/results.json; ONLY=name,name for a part
	dev/install services
	dev/peers
	dev/build --release --workspace --bin thalweg-benches
	$(RELEASED)/thalweg-benches $(ONLY)

# GPU_OUT gets the programs: small, static but for libc, to be copied to a machine with a device (docs/gpu.md).
GPU_OUT ?= $(TARGET)/gpu
gpu-programs:
	CARGO=$(CARGO) dev/gpu-programs $(GPU_OUT)

test-gpu: gpu-programs ## the conformance suite on this machine's GPU; fails without one
	dev/gpu $(GPU_OUT)/test-gpu --nocapture --test-threads=1 on_device

bench-gpu: gpu-programs ## what the GPU reaches beside what it could; ONLY=name for a part
	dev/gpu $(GPU_OUT)/bench-gpu $(ONLY)

fetch-models: ## all-MiniLM-L6-v2 for the tests and benchmarks that run real weights, 91 MB, once
	dev/minilm fetch

fmt: ## format the code
	$(CARGO) fmt --all

clippy: ## the lints alone
	$(CARGO) clippy --workspace --all-targets -- -D warnings

doc: ## the documentation of all crates
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

clean: ## delete build output
	$(CARGO) clean
