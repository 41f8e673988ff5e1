# Everything starts from nothing: what is missing on the machine is installed or built on first use, with a line
# that says so. `DB=mariadb` runs on MariaDB instead of MySQL 9; `KUBECONFIG`, `KUBEBUILDER_ASSETS` and
# `DATABASE_URL` are used instead of own servers when they are set.

CARGO ?= cargo
DEV := $(CARGO) run --quiet -p e2e --bin dev --
IMAGE ?= autobuild:dev

.DEFAULT_GOAL := help
.PHONY: help demo up down test soak check generate image build tools

help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: tools
	$(CARGO) build --workspace --all-targets --locked

tools:
	@command -v cargo >/dev/null || { echo "Rust is missing: install it from https://rustup.rs"; exit 1; }
	@command -v kubectl >/dev/null || { echo "kubectl is missing: see https://kubernetes.io/docs/tasks/tools/"; exit 1; }

demo: tools ## Start everything, show ten servers becoming what they should be, and stop (stays until Ctrl-C on a terminal)
	$(CARGO) build --workspace --bins --locked
	@$(DEV) demo

up: tools ## Start everything detached and write target/dev/env
	$(CARGO) build --workspace --bins --locked
	@$(DEV) up

down: tools ## Stop exactly what `make up` started
	@$(DEV) down

test: build ## Every test, on real servers, and every check
	$(CARGO) test --workspace --locked --no-fail-fast
	@$(MAKE) --no-print-directory check

soak: build ## The tests that take long
	$(CARGO) test --workspace --no-fail-fast -- --ignored

check: tools ## Formatting, lints, documentation and generated files
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --quiet
	$(CARGO) run --quiet --bin autobuild -- crds --check crds

generate: tools ## Write the generated files again
	$(CARGO) run --quiet --bin autobuild -- crds > crds/servers.autobuild.dev.yaml

image: ## Build the container image (IMAGE=name:tag)
	@builder=$$(command -v podman || command -v docker || command -v buildah) || \
	  { echo "an image needs podman, docker or buildah"; exit 1; }; \
	case "$$builder" in *buildah) set -- bud;; *) set -- build;; esac; \
	"$$builder" "$$@" -f manifests/Containerfile -t $(IMAGE) .
