# The one interface to everything here; CI runs the same targets. `make` prints what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.ONESHELL:
MAKEFLAGS += --no-print-directory

# Where the pinned tools are kept; several work trees may share one cache.
export STRONGROOM_CACHE ?= $(CURDIR)/.cache
export STRONGROOM_TOOLS := $(STRONGROOM_CACHE)/tools/bin

# The target is said even where it is the host, so that build scripts and macros are not linked statically.
TARGET := $(shell rustc -vV | sed -n 's/^host: //p')
export STRONGROOM_SHIPPED := $(CURDIR)/target/$(TARGET)/release/strongroom
STATIC := $(if $(findstring linux,$(TARGET)),-C target-feature=+crt-static)

# Not a part of make's own job count, which cargo would else try to join.
CARGO := env -u MAKEFLAGS -u MFLAGS cargo

TEST_TOOLS := helm helm3 helm-min sops sops-min vals moto bao kubectl age-keygen aws argocd argocd-min kubernetes licences

EXAMPLE := hello examples/hello -n demo $(foreach name,database mail session,-f examples/hello/secrets/$(name).yaml)

##@ Use

.PHONY: demo
demo: build ## Render examples/hello with secrets masked; needs no account and no server
	@e2e/tools/get helm
	set -x
	STRONGROOM_HELM=$(STRONGROOM_TOOLS)/helm STRONGROOM_KEYS_DIR=examples/keys $(STRONGROOM_SHIPPED) template $(EXAMPLE)

.PHONY: build
build: ## Build the shipped program: optimised, one static file on Linux
	@echo "build: the release program; the first time takes about 8 minutes on 2 cores" >&2
	export AWS_LC_SYS_NO_JITTER_ENTROPY=1 RUSTFLAGS="$(STATIC)" STRONGROOM_SOURCE="$(CURDIR)" RUSTC_WRAPPER="$(CURDIR)/image/rustc"
	export CFLAGS="-ffile-prefix-map=$${CARGO_HOME:-$$HOME/.cargo}=/cargo -ffile-prefix-map=$(CURDIR)=/strongroom"
	$(CARGO) build --release --locked --target $(TARGET) --bin strongroom
	echo "build: $(STRONGROOM_SHIPPED), $$(du -h $(STRONGROOM_SHIPPED) | cut -f1)" >&2

.PHONY: reproducible
reproducible: build ## Build the shipped program once more in another folder, and see that it is the same
	@elsewhere=$$(mktemp -d)
	trap 'rm -rf "$$elsewhere"' EXIT
	git archive HEAD | tar -x -C "$$elsewhere"
	$(MAKE) -C "$$elsewhere" build
	cmp "$(STRONGROOM_SHIPPED)" "$$elsewhere/target/$(TARGET)/release/strongroom"
	echo "reproducible: $$(sha256sum <"$(STRONGROOM_SHIPPED)" | cut -d' ' -f1), from two folders" >&2

.PHONY: image
image: build ## Build the container image as an OCI archive, with its bill of materials
	@e2e/tools/get helm licences
	image/build

##@ Check

.PHONY: test
test: ## Set everything up, lint, and run all tests, the ones with real tools and servers too
	@$(MAKE) -j2 set-up build
	$(MAKE) lint
	$(CARGO) test --locked --no-fail-fast

.PHONY: set-up
set-up: ## Get what the tests need: a few packages of the machine and the pinned tools
	@e2e/tools/machine
	e2e/tools/get $(TEST_TOOLS) cargo-deny

.PHONY: lint
lint: ## Check format, lints, documentation, scripts, and the licences and sources of dependencies
	@e2e/tools/get cargo-deny
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	for script in .ci/run e2e/tools/get e2e/tools/machine examples/make-secrets.sh image/build image/rustc; do bash -n "$$script"; done
	$(STRONGROOM_TOOLS)/cargo-deny --log-level error check bans licenses sources

.PHONY: bench
bench: build ## Compare speed with helm, sops, vals and argocd-cmp-server; wants a machine that does nothing else
	@e2e/tools/get argocd bao helm moto sops vals
	$(CARGO) test --locked --test bench -- --ignored --nocapture --test-threads=1

.PHONY: soak
soak: build ## Render for two minutes, several at once, and open some thousand random SOPS files
	@e2e/tools/get helm sops sops-min
	$(CARGO) test --locked --test soak -- --ignored --nocapture

FUZZ_TARGETS := authority references sops_metadata sops_yaml sops_json sops_dotenv sops_ini sops_binary text_surgery
COVERAGE := -Cpasses=sancov-module $(foreach kind,level=4 inline-8bit-counters pc-table trace-compares,-Cllvm-args=-sanitizer-coverage-$(kind))

.PHONY: fuzz
fuzz: ## Fuzz everything that parses bytes from outside, a minute each
	@RUSTFLAGS="$(COVERAGE)" $(CARGO) build --locked --profile fuzz --target $(TARGET) --target-dir target/fuzz -p strongroom-fuzz
	for target in $(FUZZ_TARGETS); do
	  mkdir -p fuzz/corpus/$$target fuzz/artifacts
	  target/fuzz/$(TARGET)/fuzz/$$target -max_total_time=60 -max_len=8192 -dict=fuzz/sops.dict -artifact_prefix=fuzz/artifacts/ fuzz/corpus/$$target e2e/fixtures/sops
	done

.PHONY: advisories
advisories: ## Check dependencies against known vulnerabilities; needs a network that reaches the advisory database
	@e2e/tools/get cargo-deny
	$(STRONGROOM_TOOLS)/cargo-deny check advisories

.PHONY: docs
docs: ## Write the pages of docs/ that come from the code's own tables
	@for page in parameters references; do
		$(CARGO) run --quiet --locked -- docs $$page >docs/$$page.new
		mv docs/$$page.new docs/$$page.md
	done

.PHONY: clean
clean: ## Remove what was built; the cache of tools stays
	$(CARGO) clean

.PHONY: help
help: ## Print this
	@awk 'BEGIN { FS = ":.*## " } /^##@/ { printf "\n%s\n", substr($$0, 5) } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
