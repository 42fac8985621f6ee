# Rowmill's tasks. They need cargo and rustc; what else is missing they install, and say so.
# One compiled profile, release, and one selection of packages, the whole workspace, serve the demo and the tests: with another
# selection cargo could choose other features for wasmtime's dependencies, and compile wasmtime twice.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

target := $(or $(CARGO_TARGET_DIR),target)
rows := 100000
# nextest's profile (.config/nextest.toml): `ci` where CI is set.
profile := $(if $(CI),ci,default)
# The advisory database is fetched within this time, or the check is left out with a warning.
advisory_seconds := 120

# With the PostgreSQL server that tests share; it ends with the tests.
nextest = $(target)/release/with-servers -- cargo nextest run --workspace --cargo-profile release --profile $(profile)
# The server that speaks S3 in tests. This version builds with our compiler.
s3_server := s3s-fs --version 0.14.1

fuzz_targets := upload host outcome intake
# No sanitizer: the code is safe Rust but for wasmtime, whose pool wants the address space that one would reserve; it also lets the stable compiler do. What is compiled is what
# production has (no `--cfg fuzzing`), with assertions.
fuzz = cargo fuzz run --fuzz-dir tests/fuzz --target-dir $(target)/fuzz --sanitizer none --no-cfg-fuzzing
fuzz_flags := -timeout=30 -rss_limit_mb=4096 -len_control=0 -print_final_stats=1

say = printf '==> %s\n'
as_root = $(if $(filter 0,$(shell id -u)),,sudo)
apt_install = $(as_root) sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$$@" >/dev/null' sh

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: cc ## Validate 100,000 bank transactions with a sandboxed guest, and check every result
	@bash examples-guests/build.sh bank-transactions
	$(say) "building rowmill (the first time compiles wasmtime: some minutes)"
	cargo build --release --workspace --bins
	transactions=$(target)/release/transactions
	csv=target/demo/transactions.csv results=target/demo/results
	mkdir -p target/demo
	rm -rf "$$results"
	$(say) "making $(rows) transactions, about 1 % of them bad"
	"$$transactions" generate --rows $(rows) "$$csv"
	$(say) "rowmill run --processor target/guests/bank-transactions.wasm --input $$csv --out $$results"
	# Status 1 says that some rows failed, as the bad ones must; whether they are the right ones, the checker judges.
	status=0
	$(target)/release/rowmill run --processor target/guests/bank-transactions.wasm --input "$$csv" --out "$$results" || status=$$?
	if [ "$$status" -gt 1 ]; then
		$(say) "rowmill run ended with status $$status" >&2
		exit "$$status"
	fi
	$(say) "checking every result against the input"
	"$$transactions" check "$$csv" "$$results"
	$(say) "input: $$csv"
	for file in "$$results"/*; do
		$(say) "output: $$file ($$(du -sh "$$file" | cut -f 1))"
	done

.PHONY: example
example: cc guests ## Run one of Alya's examples: make example NAME=batch-append (docs/from-alya.md lists them)
	@cargo build --release --workspace --bins
	case "$(NAME)" in
		banktxns|infiled) examples/$(NAME)/run.sh $(ARGS) ;;
		*) $(target)/release/alya-examples $(NAME) $(ARGS) ;;
	esac

.PHONY: test
test: cc nextest guests servers ## Run every test
	@$(say) "documentation tests"
	cargo test --release --workspace --doc --quiet
	$(say) "tests"
	cargo build --release --workspace --bins
	$(nextest)

.PHONY: test-one
test-one: cc nextest guests servers ## Run the tests with T in their name: make test-one T=name
	@cargo build --release --workspace --bins
	$(nextest) $(if $(T),-E 'test($(T))')

.PHONY: history
history: cc guests servers ## Kill and stop everything for a while, and check every promise: make history SEED=1 SECONDS=1800
	@cargo build --release --workspace --bins
	$(target)/release/history --seed $(or $(SEED),1) --seconds $(or $(SECONDS),120)

.PHONY: attacks
attacks: cc nextest guests servers ## Attack the sandbox, and print what came of each attack (docs/security.md)
	@cargo build --release --workspace --bins
	$(target)/release/with-servers -- $(target)/release/attacks

.PHONY: mistakes
mistakes: cc guests ## Make the mistakes of authors in each language, and print what they are told (docs/mistakes.md)
	@cargo build --release --workspace --bins
	$(target)/release/mistakes

.PHONY: fuzz
fuzz: cc guests fuzz-tools ## Feed arbitrary bytes to what takes them: make fuzz T=upload SECONDS=1800
	@cargo build --release --workspace --bins
	$(target)/release/fuzz-seeds $(target)/fuzz/seeds
	mkdir -p $(target)/fuzz-logs
	found=()
	for name in $(or $(T),$(fuzz_targets)); do
		corpus=$(target)/fuzz/corpus/$$name log=$(target)/fuzz-logs/$$name.log
		mkdir -p "$$corpus"
		$(say) "building and running $$name for $(or $(SECONDS),60) s (the first time compiles wasmtime once more: many minutes); $$log says more"
		$(fuzz) "$$name" "$$corpus" "$(target)/fuzz/seeds/$$name" -- -max_total_time=$(or $(SECONDS),60) $(fuzz_flags) >"$$log" 2>&1 || found+=("$$name")
		grep -E '^stat::(number_of_executed_units|average_exec_per_sec)|^#[0-9]+.DONE|panicked at|^SUMMARY|Failing input' "$$log" || tail -n 20 "$$log"
	done
	if [ "$${#found[@]}" -gt 0 ]; then
		$(say) "found something: $${found[*]}; the inputs are in tests/fuzz/artifacts" >&2
		exit 1
	fi

.PHONY: stopping
stopping: cc guests servers ## Measure how long guests take to stop: make stopping TRIES=200 BESIDE=50
	@cargo build --release --workspace --bins
	$(target)/release/with-servers -- $(target)/release/stopping --tries $(or $(TRIES),200) --beside $(or $(BESIDE),50)

.PHONY: overhead
overhead: cc guests ## Measure what a row costs in the sandbox, against wasmtime alone
	@cargo build --release --workspace --bins
	$(target)/release/overhead $(ARGS)

.PHONY: loading
loading: cc guests servers ## Measure how long guests of each language take to load, and what compiling one costs others
	@cargo build --release --workspace --bins
	$(target)/release/with-servers -- $(target)/release/loading --tries $(or $(TRIES),5)

.PHONY: lint
lint: cc rust-tools deny ## Check formatting, lints, docs, the lock file, licences and advisories
	@$(say) "formatting"
	cargo fmt --all --check
	$(say) "lock file"
	cargo metadata --locked --format-version 1 >/dev/null
	# The release profile shares build scripts and macros with `make test`; clippy and rustdoc share the rest.
	$(say) "clippy"
	cargo clippy --release --workspace --all-targets -- -D warnings
	$(say) "docs"
	RUSTDOCFLAGS='-D warnings' cargo doc --release --workspace --no-deps --document-private-items --quiet
	$(say) "licences, bans, sources"
	# Warnings (crates in two versions) are only counted; `cargo deny --config .config/deny.toml check bans` shows them.
	cargo deny -L error --config .config/deny.toml check --show-stats licenses bans sources
	$(say) "advisories"
	if GIT_TERMINAL_PROMPT=0 timeout $(advisory_seconds) cargo deny --config .config/deny.toml fetch db; then
		cargo deny --offline --config .config/deny.toml check --hide-inclusion-graph advisories
	else
		$(say) "WARNING: ADVISORIES NOT CHECKED: the RustSec database can't be fetched from this machine" >&2
	fi

.PHONY: fmt
fmt: rust-tools ## Format the code
	@cargo fmt --all

.PHONY: guests
guests: cc ## Compile the example guests to target/guests
	@bash examples-guests/build.sh

.PHONY: clean
clean: ## Remove everything that was built
	@cargo clean
	rm -rf target

# What the tasks above need. Each is quick when it is there.

# The linker, and SQLite's C.
.PHONY: cc
cc:
	@if ! command -v cc >/dev/null; then
		$(say) "no C compiler: installing gcc and libc6-dev with apt-get"
		$(apt_install) gcc libc6-dev
	fi

.PHONY: nextest
nextest:
	@if ! cargo nextest --version >/dev/null 2>&1; then
		$(say) "installing cargo-nextest (some minutes)"
		cargo install cargo-nextest --locked
	fi

# What tests start for themselves: PostgreSQL, PgBouncer, Redis, and servers that speak S3 and SMTP. Debian starts services when it installs them, unless
# policy-rc.d says no.
.PHONY: servers
servers: cc ## Install the servers that tests start
	@missing=()
	compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || command -v postgres >/dev/null || missing+=(postgresql)
	for program in redis-server pgbouncer psql setpriv aiosmtpd; do
		PATH=$$PATH:/usr/sbin command -v "$$program" >/dev/null || case $$program in
			psql) missing+=(postgresql-client) ;;
			setpriv) missing+=(util-linux) ;;
			aiosmtpd) missing+=(python3-aiosmtpd) ;;
			*) missing+=("$$program") ;;
		esac
	done
	if [ "$${#missing[@]}" -gt 0 ]; then
		$(say) "installing $${missing[*]} with apt-get"
		policy=/usr/sbin/policy-rc.d
		if [ ! -e "$$policy" ]; then
			trap '$(as_root) rm -f "$$policy"' EXIT
			printf '#!/bin/sh\nexit 101\n' | $(as_root) install -m 755 /dev/stdin "$$policy"
		fi
		$(apt_install) "$${missing[@]}"
	fi
	if [ ! -x $(target)/tools/bin/s3s-fs ]; then
		$(say) "installing $(s3_server) to $(target)/tools (about a minute)"
		# Unoptimised: it is built faster than its speed would save.
		CARGO_PROFILE_DEV_DEBUG=0 cargo install $(s3_server) --features binary --locked --debug --quiet --root $(target)/tools --target-dir $(target)/tools/build
		rm -rf $(target)/tools/build
	fi

.PHONY: deny
deny: cc
	@if ! cargo deny --version >/dev/null 2>&1; then
		$(say) "installing cargo-deny (some minutes)"
		cargo install cargo-deny --locked
	fi

.PHONY: fuzz-tools
fuzz-tools: cc
	@if ! command -v c++ >/dev/null; then
		$(say) "no C++ compiler for libFuzzer: installing g++ with apt-get"
		$(apt_install) g++
	fi
	if ! cargo fuzz --version >/dev/null 2>&1; then
		$(say) "installing cargo-fuzz (a minute)"
		cargo install cargo-fuzz --locked
	fi

.PHONY: rust-tools
rust-tools:
	@for tool in fmt clippy; do
		if ! cargo $$tool --version >/dev/null 2>&1; then
			$(say) "installing $$tool with rustup"
			rustup component add "$${tool/fmt/rustfmt}"
		fi
	done
