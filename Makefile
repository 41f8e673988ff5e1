# Every target starts what it needs and stops only that.
.DEFAULT_GOAL := help
.PHONY: help test check provision

help: ## Says what there is.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## /  \1\t/'

provision: ## Installs the databases that the tests run on, where they are missing.
	@sh e2e/provision.sh

test: provision ## All tests, the queue on a real MySQL and a real MariaDB among them.
	@echo "test: building"
	@cargo build --workspace --all-targets --locked
	@echo "test: unit, property and model tests, then the queue on both databases (DB=mysql or DB=mariadb for one)"
	@cargo test --workspace --locked
	@$(MAKE) --no-print-directory check

check: ## The fast loop: format, lints, docs, pure tests.
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets --locked -- -D warnings
	@RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --locked --quiet
	@cargo test -p autobuild --lib --locked --quiet
