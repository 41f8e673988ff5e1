# Everything starts from nothing: what is missing on the machine is installed or built on first use, with a line
# that says so. `DB=mariadb` runs on MariaDB instead of MySQL 9; `KUBECONFIG`, `KUBEBUILDER_ASSETS` and
# `DATABASE_URL` are used instead of own servers when you set them (what `. target/dev/env` set does not count).

CARGO ?= cargo
# How many seeds of the small drills `make soak` tries: 15 s each with kills, minutes each with walks over specs.
SOAK_SEEDS ?= 20
# How many jobs and kills the crash drill of `make soak` has: half of them on each engine, in rounds of 2,000 jobs.
SOAK_JOBS ?= 20000
SOAK_KILLS ?= 200
# Further arguments of `autobuild bench queue` for `make bench`, such as `--quick`, and of `autobuild bench fleet` for
# `make bench-fleet`, such as `--servers 200`.
BENCH ?=
# The name that `make image` gives.
IMAGE ?= autobuild:dev

PROGRAMS = $(or $(CARGO_TARGET_DIR),target)/debug
DEV = $(PROGRAMS)/dev

.DEFAULT_GOAL := help
PROGRAM = $(or $(CARGO_TARGET_DIR),target)/release/autobuild

.PHONY: help demo up down test soak bench bench-fleet packages check generate build image tools programs

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: programs ## Start everything, show ten servers becoming Ready, and stop
	@$(DEV) packages stack
	@$(DEV) demo

up: programs ## Start everything detached, and write target/dev/env
	@$(DEV) packages stack
	@$(DEV) up

down: ## Stop exactly what `make up` started
	@if [ -x $(DEV) ]; then $(DEV) down; else echo "nothing was up"; fi

# Twice as many tests at once as there are processors: most of them wait, for machines, leases and deadlines.
test: export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
test: build ## Every test, on real servers, and every check
	@$(DEV) packages tests
	$(CARGO) test --workspace --locked --no-fail-fast
	@$(MAKE) --no-print-directory check

soak: build ## The long drills: SOAK_JOBS (20000) with SOAK_KILLS (200) over both engines, clocks, disks, cut links, an upgrade and the way back, and SOAK_SEEDS (20) small ones
	@$(DEV) packages tests
	@for engine in mysql mariadb; do \
	    DB=$$engine SOAK_JOBS=$$(($(SOAK_JOBS) / 2)) SOAK_KILLS=$$(($(SOAK_KILLS) / 2)) \
	        $(CARGO) test --workspace --locked --test drills -- --nocapture crash::whoever || exit 1; \
	done
	$(CARGO) test --workspace --locked --test drills -- --ignored --test-threads=1
	$(CARGO) test --workspace --locked --test kill --test bench --test upgrade --test controller -- --ignored --test-threads=1
	SOAK_SEEDS=$(SOAK_SEEDS) $(CARGO) test --workspace --locked --test kill -- --nocapture at_random
	@for seed in $$(seq $(SOAK_SEEDS)); do \
	    SOAK_SEED=$$seed SOAK_STEPS=10 $(CARGO) test --workspace --locked --test drills -- --nocapture walks || exit 1; \
	done

bench: programs ## Measure the queue on MySQL and MariaDB, about 8 minutes each (BENCH: more arguments; DB: one engine)
	@$(DEV) packages bench
	$(CARGO) build --release --locked --package autobuild --bin autobuild --features peer-apalis
	@$(DEV) bench $(PROGRAM) -- $(BENCH)

bench-fleet: programs ## Measure all of it together: 1,000 emulated servers, real API server and database (BENCH: more arguments)
	@$(DEV) packages stack
	$(CARGO) build --release --locked --package autobuild --bin autobuild
	@$(DEV) bench-fleet $(PROGRAM) -- $(BENCH)

packages: programs ## Install what tests need and this machine lacks, as make test does first
	@$(DEV) packages tests

check: programs ## Formatting, lints, documentation, generated files, licences and sources of dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	$(PROGRAMS)/autobuild crds --check crds
	@$(DEV) packages check
	@$(DEV) deny

generate: programs ## Write the generated files again
	$(PROGRAMS)/autobuild crds --write crds
	UPDATE_GENERATED=1 $(CARGO) test --quiet --workspace --lib --test docs _page

build: tools ## Build everything, tests included
	$(CARGO) build --workspace --all-targets --locked

image: ## Build the container image (IMAGE, default autobuild:dev)
	@for builder in podman docker buildah; do \
	    command -v $$builder >/dev/null || continue; \
	    echo "building $(IMAGE) with $$builder: some minutes"; \
	    exec $$builder build --file manifests/Containerfile --tag $(IMAGE) .; \
	done; \
	echo "make image needs one of podman, docker and buildah on PATH, and none is there"; exit 1

# The programs alone: tests need longer to build. Always of the whole workspace: a build of one package has no crash
# points, and the drills that run it afterwards never die.
programs: tools
	$(CARGO) build --workspace --bins --locked

tools:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs"; exit 1; }
	@command -v kubectl >/dev/null || { echo "kubectl is missing: see https://kubernetes.io/docs/tasks/tools/"; exit 1; }
