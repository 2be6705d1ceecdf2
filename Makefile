# The same verbs here and in CI. Nothing else to install first but Python 3.11+ with venv, make and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STATE ?= var
CONFIG ?= services/cli/netmail_cli/demo/demo.yaml
KILLS ?= 20
SECONDS_EACH ?= 30
CLUSTER ?= ../shared/cluster/cluster
# What builds images: docker build, podman build, buildah bud --timestamp 0.
IMAGE_BUILD ?= docker build
IMAGE_PREFIX ?= netmail
IMAGE_TAG ?= dev
IMAGE_ARGS ?=
IMAGES := connmgr smtp pop-imap nmap cli

PACKAGES := protos services/common services/connmgr services/smtp services/pop_imap services/nmap services/cli
SOURCES := services tests bench helm
EDITABLE := $(foreach p,$(PACKAGES),-e $(p))

.PHONY: help run demo test quick check fmt fmt-fix lint types unit proto charts bench fuzz fuzz-proof crash lock clean images cluster-images cluster-up cluster-install cluster-test cluster-long cluster-down

run: $(VENV)/run.stamp
	@exec $(BIN)/netmail run --config $(CONFIG) --state $(STATE)

demo: $(VENV)/run.stamp
	@exec $(BIN)/netmail demo

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements/run.txt requirements/build.txt $(PACKAGES:%=%/pyproject.toml) | $(VENV)/bin/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/build.txt -r requirements/run.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps $(EDITABLE)
	@touch $@

$(VENV)/dev.stamp: requirements/dev.txt $(VENV)/run.stamp
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

quick: fmt lint types unit

check:
	@for verb in fmt lint types test proto charts; do \
	  start=$$(date +%s); $(MAKE) --no-print-directory $$verb || exit 1; \
	  echo "== make $$verb: $$(awk -v s=$$(($$(date +%s) - start)) 'BEGIN { printf "%.1f", s / 60 }') min"; done

help:
	@grep -B1 -E '^[a-z-]+:' Makefile | grep -E '^(#|[a-z-]+:)' | sed -e 's/:.*//'

fmt: $(VENV)/dev.stamp
	$(BIN)/ruff format --check $(SOURCES)

fmt-fix: $(VENV)/dev.stamp
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix --quiet $(SOURCES)

lint: $(VENV)/dev.stamp
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/lint-imports --no-cache
	$(BIN)/yamllint --strict .
	git ls-files -z '*.sh' '.ci/run' | xargs -0 -r $(BIN)/shellcheck

types: $(VENV)/dev.stamp
	$(BIN)/mypy $(SOURCES)

# Without what needs a server from a Debian package.
unit: $(VENV)/dev.stamp
	$(BIN)/pytest -n 2 -m "not server" tests/common tests/connmgr tests/smtp tests/pop_imap tests/nmap tests/cli

# Every test: unit, end to end, interop with Debian's clients and servers, crash, fuzz.
test: $(VENV)/dev.stamp
	$(BIN)/pytest -n 2 tests/common tests/connmgr tests/smtp tests/pop_imap tests/nmap tests/cli
	$(BIN)/pytest -rs --durations=20 tests/e2e tests/interop tests/crash
	$(MAKE) fuzz

proto: $(VENV)/dev.stamp
	cd protos && ../$(BIN)/buf lint && ../$(BIN)/buf format --diff --exit-code
	$(BIN)/python protos/check_generated.py

charts: $(VENV)/dev.stamp
	$(BIN)/hadolint services/*/Dockerfile
	$(BIN)/python helm/document.py --check
	$(BIN)/pytest -q tests/helm

# The images of the agents and of the command line: $(IMAGE_PREFIX)/NAME:$(IMAGE_TAG).
images:
	for name in $(IMAGES); do \
	  $(IMAGE_BUILD) $(IMAGE_ARGS) -t $(IMAGE_PREFIX)/$$name:$(IMAGE_TAG) \
	    -f services/$$(echo $$name | tr - _)/Dockerfile . || exit 1; done

# The same for the cluster of this machine, and onto its nodes.
cluster-images: cluster-up
	$(MAKE) images IMAGE_BUILD="$(CLUSTER) bud --timestamp 0" IMAGE_PREFIX=localhost/netmail \
	  IMAGE_ARGS="--build-arg BASE_IMAGE=netmail-base:py311 --build-arg BUILD_IMAGE=netmail-base:py311-build"
	$(CLUSTER) load $(foreach name,$(IMAGES),localhost/netmail/$(name):$(IMAGE_TAG)=netmail/$(name):$(IMAGE_TAG))

cluster-up:
	@$(CLUSTER) kubectl get nodes >/dev/null 2>&1 || { $(CLUSTER) base && $(CLUSTER) up --nodes 2; }

# A mail system with default values on that cluster; on another one by KUBECONFIG see docs/kubernetes.md.
cluster-install: cluster-images
	IMAGE_VALUES="$(foreach name,connmgr smtp pop-imap nmap cli,--set $(name).image.tag=$(IMAGE_TAG))" \
	  helm/try.sh "$(CLUSTER) kubectl" "$(CLUSTER) helm"

# Tests on that cluster; with KUBECONFIG on another one, which has the images already. cluster-long: also what takes
# minutes each (node failures, stores that fail over, mesh, add-ons).
cluster-test: CLUSTER_TESTS ?= -m "not long"
cluster-long: CLUSTER_TESTS ?= -m long
cluster-test cluster-long: $(VENV)/dev.stamp $(if $(KUBECONFIG),,cluster-images)
	$(if $(KUBECONFIG),,NETMAIL_CLUSTER_TOOL=$(CLUSTER)) NETMAIL_IMAGE_TAG=$(IMAGE_TAG) \
	  $(BIN)/pytest -rs -s --durations=10 $(CLUSTER_TESTS) tests/cluster

cluster-down:
	$(CLUSTER) down

bench: $(VENV)/dev.stamp
	$(BIN)/python -m bench

fuzz: $(VENV)/dev.stamp
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS_EACH)

fuzz-proof: $(VENV)/dev.stamp
	$(BIN)/python -m tests.fuzz --proof

crash: $(VENV)/dev.stamp
	NETMAIL_CRASH_KILLS=$(KILLS) $(BIN)/pytest -s tests/crash

# Resolves the pinned requirements anew; the files hold versions and hashes, no addresses.
lock: $(VENV)/dev.stamp
	for f in build run dev; do \
	  $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --python-version 3.11 \
	    requirements/$$f.in -o requirements/$$f.txt; done
	for f in $(IMAGES); do \
	  $(BIN)/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11 \
	    -c requirements/run.txt -c requirements/dev.txt requirements/images/$$f.in -o requirements/images/$$f.txt; done

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
