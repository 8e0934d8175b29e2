# `make` lists the targets. Each sets up what it needs.

# uv as .ci/uv.txt has it: the one on PATH, or one of this checkout.
UV_VERSION := $(shell sed -n 's/^uv==\([0-9.]*\).*/\1/p' .ci/uv.txt)
UV := $(shell uv --version 2>/dev/null | grep -q '^uv $(UV_VERSION) ' && command -v uv || echo .tools/bin/uv)
RUN := $(UV) run --locked
COMPOSE ?= docker compose
ORDINARY := -m "not browser and not faults and not fuzz and not container"

# For a registry that answers late, and for another make that installs into this checkout.
export UV_HTTP_TIMEOUT ?= 120
export UV_HTTP_RETRIES ?= 5
export UV_LOCK_TIMEOUT ?= 1800

# Where this is set, each of the tests' hundreds of processes compiles what it imports.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: .setup-run  ## serve on the embedded database, http://127.0.0.1:8000
	@$(RUN) --no-dev -m sam.callback serve --embedded

.PHONY: demo
demo: .setup-run  ## show the whole story in one go, and end
	@$(RUN) --no-dev -m sam.callback demo

.PHONY: test
test: .setup-test  ## the tests, but for the kinds below
	$(RUN) pytest -n auto $(ORDINARY)

.PHONY: coverage
coverage: .setup-test  ## what of the code `make test` runs, by branches, the service's processes included
	$(RUN) pytest -n auto $(ORDINARY) --cov --cov-report=term-missing

.PHONY: test-faults
test-faults: .setup-faults  ## break things for minutes: kills, silence, locks, full disks
	$(RUN) pytest -n 3 --dist worksteal -m faults  # two cores: they mostly wait

.PHONY: test-repeat
TARGET ?= test
TIMES ?= 10
BUSY ?= 0
test-repeat:  ## TARGET=test TIMES=10 times, beside BUSY=0 busy loops, until it fails
	@.ci/repeat $(TARGET) $(TIMES) $(BUSY)

.PHONY: test-alone
test-alone: .setup-test  ## each of the tests in a process of its own, two at a time: half an hour
	$(RUN) pytest --collect-only -q $(ORDINARY) | sed -n '/::/{s/\[.*//;p}' | sort -u | \
	    xargs -r -P 2 -n 1 $(RUN) --no-sync pytest -q --no-header -p no:cacheprovider

.PHONY: test-fuzz
test-fuzz: .setup-test  ## 20,000 malformed requests, the same ones each time
	$(RUN) --group fuzz pytest -n 2 --dist worksteal -m fuzz tests/fuzz

.PHONY: fuzz
fuzz: .setup-test  ## a million others (or SAM_FUZZ_REQUESTS=n, SAM_FUZZ_SEED=text): an hour
	SAM_FUZZ_REQUESTS=$${SAM_FUZZ_REQUESTS:-1000000} SAM_FUZZ_SEED=$${SAM_FUZZ_SEED:-$$(date +%s)} \
	    $(RUN) --group fuzz pytest -q -n 2 --dist worksteal -m fuzz tests/fuzz

.PHONY: test-browser
test-browser: .setup-test .setup-browser  ## the docs page in a headless Chromium, without a network
	$(RUN) --group browser pytest -m browser

.PHONY: bench
bench: .setup-test  ## measure everything, and write docs/benchmarks.md: half an hour on a quiet machine
	$(RUN) --group bench -m tests.benchmarks run --page

.PHONY: bench-quick
bench-quick: .setup-test  ## measure a part of it, on SQLite, in under a minute
	$(RUN) --group bench -m tests.benchmarks run --quick

.PHONY: test-container
test-container: .setup-test  ## build the image and run it, where a container engine is present
	@if problem=$$(docker version 2>&1 >/dev/null); then \
	    set -x; $(RUN) pytest -m container; \
	elif [ -n "$(NEED_CONTAINER_ENGINE)" ]; then \
	    echo "$$problem" >&2; exit 1; \
	else \
	    echo "NOT RUN: no container engine answers here, so the image was neither built nor run."; \
	    echo "$$problem"; \
	fi

.PHONY: docs
docs: .setup-test  ## build the documentation as a site, into site/
	$(RUN) -m tests.support.site
	$(RUN) --group docs zensical build --strict --clean

.PHONY: up
up:  ## build and start the stack of compose.yaml, and wait until it is healthy
	@COMPOSE="$(COMPOSE)" .docker/up

.PHONY: smoke
smoke:  ## one callback through the running stack, then its row read back
	@COMPOSE="$(COMPOSE)" .docker/smoke

.PHONY: down
down:  ## end the stack, and delete its data
	$(COMPOSE) --profile observability --profile replicated down --volumes

.PHONY: lint
lint: .setup-test  ## style, types, import rules, spelling, scripts, workflows
	$(RUN) ruff format --check
	$(RUN) ruff check
	$(RUN) --group browser mypy
	$(RUN) mypy --platform win32 --no-warn-unreachable sam
	$(RUN) lint-imports
	$(RUN) codespell
	$(RUN) shellcheck $$(git grep --untracked -l '^#!/.*sh$$')
	$(RUN) yamllint --strict .
	$(RUN) check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(RUN) check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	$(RUN) check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	$(MAKE) --no-print-directory licences >/dev/null

.PHONY: sbom
SBOM ?= sbom.cdx.json
sbom: .setup-run  ## write what the service consists of, with hashes, as CycloneDX
	$(UV) export --locked --quiet --no-dev --format cyclonedx1.5 \
	    --preview-features sbom-export --output-file $(SBOM) >/dev/null

.PHONY: release
CHECKS ?= lint test test-container
release: .setup-run  ## check, and build the release that HEAD is tagged as, into dist/; nothing is published
	@set -e; for check in $(CHECKS); do $(MAKE) --no-print-directory $$check; done
	@.ci/release

.PHONY: licences
licences: .setup-test  ## list the licences of what the service needs; fail on one that is not allowed
	@packages=$$($(UV) export --locked --quiet --no-dev --no-emit-project \
	    --no-hashes --no-annotate --no-header) && \
	$(RUN) pip-licenses --packages $$(echo "$$packages" | sed 's/[ =;].*//')

.PHONY: audit
audit: .setup-run  ## ask osv.dev for known vulnerabilities of what is locked
	$(UV) audit --locked --preview-features audit-command

.PHONY: setup
setup: .setup-test .setup-faults .setup-browser  ## install all that the other targets need
	$(UV) sync --locked --group browser

.PHONY: .setup-run
.setup-run:
	@.ci/system-packages run
	@[ $(UV) != .tools/bin/uv ] || $(MAKE) --no-print-directory .tools/bin/uv

.PHONY: .setup-test
.setup-test:
	@.ci/system-packages test
	@[ $(UV) != .tools/bin/uv ] || $(MAKE) --no-print-directory .tools/bin/uv

.PHONY: .setup-faults
.setup-faults: .setup-test
	@.ci/system-packages faults

.PHONY: .setup-browser
.setup-browser:
	@.ci/system-packages browser

# For machines without that uv: its own, in this checkout only.
.tools/bin/uv: .ci/uv.txt
	@.ci/uv
