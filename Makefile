# Everything runs in .venv of this checkout; nothing is installed elsewhere.
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-fast check format proto tiny-model bench clean

help: ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with the command .venv/bin/glm3

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or call make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

demo: setup ## run the main job on the embedded model
	$(BIN)/glm3 demo

test: setup ## run the tests
	$(BIN)/python -m pytest -n 2 -m 'not slow'

test-slow: setup ## run the tests that take long: whole trainings, jobs of several processes, the README's commands
	$(BIN)/python -m pytest -n 2 -m slow

test-fast: setup ## run the tests that need no MindSpore and no long time
	$(BIN)/python -m pytest -n 2 -m 'not slow' tests/unit tests/contracts

check: setup ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## format the code in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: setup ## generate the Python modules of every .proto file anew
	cd typings && PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I . --python_out=. --mypy_out=. \
		glm3/adapters/strategy/strategy.proto
	cd typings && PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I . \
		--python_out=. --mypy_out=. --grpc_python_out=. --mypy_grpc_out=. \
		glm3/entrypoints/grpc/glm3/v1/chat.proto

tiny-model: setup ## write the embedded model and its rows anew (35 minutes on two busy cores)
	$(BIN)/python -m tools.tiny_model

bench: setup ## measure answering with the embedded model, in a minute; benchmarks/ says how to measure others
	$(BIN)/python benchmarks/inference.py --rounds 5
	$(BIN)/python benchmarks/inference.py --rounds 5 --quant int4 --section decode --section lookup
	$(BIN)/python benchmarks/kernels.py --rounds 3 --tokens 1 --tokens 8 --tokens 128

clean: ## remove the environment and every cache
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
