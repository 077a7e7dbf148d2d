# The daily commands. Nothing is needed beforehand but Python (3.11 or later), pip and make.
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.PHONY: run test check deep bench lock docs clean
.DEFAULT_GOAL := run

run: .venv/run.ready            ## set up, then lab + refresh + one request, ending by itself
	$(BIN)/proxywell demo

test: .venv/test.ready          ## set up, then every test that this machine can run
	tools/system-packages
	$(BIN)/python -m pytest -m "not deep"

check: .venv/test.ready         ## style, types, doors, tidy, unit and contract tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q -m "not deep" tests/tidy tests/unit tests/contract

deep: .venv/test.ready          ## many thousand examples and seeds; planted bugs
	tools/system-packages
	PROXYWELL_TEST_PROFILE=deep $(BIN)/python -m pytest -o timeout=1800

bench: .venv/test.ready         ## every benchmark, with a record in benchmarks/records/
	$(BIN)/python -m benchmarks

lock: $(UV)                     ## newest allowed dependencies into requirements/
	tools/lock $(UV)

docs: .venv/test.ready          ## docs/reference/ from the code
	$(BIN)/python -m tools.reference

clean:                          ## remove what was set up
	rm -rf .venv .tools

$(UV):
	$(PYTHON) -m pip install --quiet --target .tools uv==$(UV_VERSION)

.venv/run.ready: requirements/run.txt pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) .venv
	$(UV) pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements/run.txt
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $@

.venv/test.ready: requirements/test.txt .venv/run.ready
	$(UV) pip install --quiet --python $(BIN)/python --require-hashes -r requirements/test.txt
	touch $@
