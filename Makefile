# AWGP. `make` alone explains every target.
#
# Settings: AWGP_DATA (data folder, default .awgp), AWGP_CACHE (built binaries, default $AWGP_DATA/cache),
#           PYTHON (3.11 or newer, default python3), ROUNDS (chaos), YES=1 (reset without asking).

PYTHON ?= python3
ROUNDS ?= 1
WORKERS ?= 2
VENV := .venv/bin
STACK := $(VENV)/python -m workers.stack
export PATH := $(CURDIR)/$(VENV):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help venv setup up down reset status demo test test-keycloak check format bench bench-sandbox bench-lifecycle chaos escape lock compose-secrets bench-gateway overspend

help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

venv:
	@$(PYTHON) -I workers/stack/bootstrap.py

demo: venv ## everything from nothing: set-up, start, and a real job twice (once by itself, once approved)
	@$(STACK) demo

up: venv ## set up what is missing and start the whole control plane; mends what was killed
	@$(STACK) up

setup: venv ## set-up alone: Python, servers, Docker engine, gVisor, guest, image, database
	@$(STACK) setup

status: venv ## what runs, and where it listens
	@$(STACK) status

down: venv ## end everything that was started here, and nothing else; data is kept
	@$(STACK) down

reset: venv ## down, then forget all data, after asking (YES=1: without)
	@$(STACK) reset

test: venv ## set up what tests need, run the checks, then all tests
	@$(STACK) prepare
	@$(MAKE) --no-print-directory check
	@AWGP_CACHE="$${AWGP_CACHE:-$$($(STACK) cache)}" $(VENV)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not chaos" $(ARGS)

KEYCLOAK := keycloak-quarkus-dist
KEYCLOAK_VERSION := 26.7.0
test-keycloak: venv ## a real Keycloak's tokens on our verification (takes Java 17, Maven, unzip)
	@mvn -B -ntp -q org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy -DoutputDirectory=$(CURDIR)/.awgp/cache \
	  -Dartifact=org.keycloak:$(KEYCLOAK):$(KEYCLOAK_VERSION):zip
	@cd .awgp/cache && test -d keycloak-$(KEYCLOAK_VERSION) || unzip -q $(KEYCLOAK)-$(KEYCLOAK_VERSION).zip
	@AWGP_TEST_KEYCLOAK=$(CURDIR)/.awgp/cache/keycloak-$(KEYCLOAK_VERSION) $(VENV)/python -m pytest -m keycloak $(ARGS) tests/api

check: venv ## ruff, pyright strict, import contracts, go vet and go test of the guest
	@echo "  … ruff" && $(VENV)/ruff check .
	@echo "  … pyright" && $(VENV)/pyright
	@echo "  … import contracts" && $(VENV)/lint-imports --no-cache
	@echo "  … go vet, go test" && $(STACK) check-guest

format: venv ## fix what ruff can fix
	@$(VENV)/ruff check --fix .

bench: bench-sandbox bench-lifecycle ## both benches

bench-sandbox: venv ## cold and warm starts and the bridge, beside `docker run` and bare `runsc run`; ROUNDS=n
	@$(STACK) prepare
	@$(VENV)/python -m bench.sandbox

bench-lifecycle: venv ## whole work items a second, beside a bare Temporal workflow
	@$(STACK) prepare
	@$(VENV)/python -m bench.lifecycle

bench-gateway: venv ## what the LLM gateway adds, beside the upstream alone and a bare pass-through (WITH_LITELLM=1: and LiteLLM)
	@$(VENV)/python -m bench.gateway

CALLS ?= 200
overspend: venv ## CALLS callers at once on a reservation for half as many, gateways killed at random, recounted
	@$(VENV)/python -m tests.overspend --calls $(CALLS)

chaos: venv ## kill -9 of every process in every state, ROUNDS times, recounted from the database
	@$(STACK) prepare
	@$(VENV)/python -m tests.chaos --rounds $(ROUNDS)

escape: venv ## every attempt to get out of the sandbox or to do harm, each beside its control with the defence off
	@$(STACK) prepare
	@AWGP_CACHE="$${AWGP_CACHE:-$$($(STACK) cache)}" $(VENV)/python -m tests.escape

compose-secrets: venv ## what docker-compose.yml mounts as secrets, and .env; once, mode 0600
	@$(VENV)/python deploy/make_secrets.py

LOCK := uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11
lock: ## lock anew after a change of pyproject.toml (takes uv)
	$(LOCK) --all-extras pyproject.toml -o requirements.lock
	$(LOCK) -c requirements.lock pyproject.toml -o deploy/requirements/runtime.lock
	$(LOCK) -c requirements.lock --extra control --extra cli pyproject.toml -o deploy/requirements/control.lock
