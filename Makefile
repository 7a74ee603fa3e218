# Everything a checkout needs. `make` alone lists the targets.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv/bin
# The packages that mypy --strict checks; what it leaves out is listed in pyproject.toml.
TYPED := rule_cache ondemand controller_app mininet_topos scale benchmarks
# Longer than any sound test takes on two slow cores: a hung switch must not hang the whole run.
TEST_TIMEOUT_S := 300
# One worker for the labs, one for all else (tests/conftest.py); 0 for none, as ARGS=--pdb needs it.
TEST_WORKERS ?= 2
# Empty: all of them, and the report.
BENCH ?=
ARGS ?=
BENCH_FILES := --json benchmarks/results.json --output benchmarks/report.html
NAME ?=

.PHONY: help setup demo experiment test fuzz lint bench clean

help: ## show this list
	@echo "usage: make TARGET [ARGS='...']"
	@echo
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 10
	@echo
	@echo "  make demo ARGS='--neighbors 100000'     the VPC has 100,000 neighbors more"
	@echo "  make test ARGS='tests/unit -k cookie'   only these tests"
	@echo "  make test ARGS=--cov                    branch coverage of the pure packages"
	@echo "  make experiment NAME=restart            a killed agent, 50,000 rules, live traffic"
	@echo "  make fuzz ARGS='--frames 1000000 --seed 1'"
	@echo "  make bench ARGS=--quick                 benchmarks/report.html in three minutes"
	@echo "  make bench BENCH=first-packet ARGS=--json=out.json"

setup: ## install what is missing: Debian packages, and the Python packages into .venv
	@scripts/setup.sh $(SETUP_FLAGS)

demo: setup ## three compute hosts on real Open vSwitch, watched while they work (root)
	@scripts/as-root $(VENV)/ondemand demo $(ARGS)

experiment: SETUP_FLAGS := --bench
experiment: setup ## run the experiment NAME on real Open vSwitch (root)
	@scripts/as-root $(VENV)/ondemand experiment $(NAME) $(ARGS)

test: SETUP_FLAGS := --bench
test: lint ## lint, then all tests, those on real Open vSwitch included (root)
	scripts/as-root env ONDEMAND_REQUIRE_SYSTEM=1 $(VENV)/pytest \
		--timeout=$(TEST_TIMEOUT_S) -n $(TEST_WORKERS) $(ARGS)

fuzz: SETUP_FLAGS := --bench
fuzz: setup ## hostile input by the million; findings end in tests/fuzz/corpus
	@$(VENV)/python -m tests.fuzz $(ARGS)

lint: setup ## ruff and mypy
	$(VENV)/ruff check .
	$(VENV)/ruff format --check .
	$(VENV)/mypy --strict $(TYPED)

bench: SETUP_FLAGS := --bench
bench: setup ## run all benchmarks, with a report, or the benchmark BENCH (root)
	@scripts/as-root $(VENV)/ondemand bench $(if $(BENCH),$(BENCH),$(BENCH_FILES)) $(ARGS)

clean: ## remove .venv, caches and build products
	rm -rf .venv build dist ./*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
