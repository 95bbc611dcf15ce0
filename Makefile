PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.livery-core
DEV    := $(VENV)/.livery-dev

.PHONY: demo test bench lint types schema clean

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(DEV): $(STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

# Compiles the kernels into the cache beside the sources, once: no job ever waits for the compiler.
.PHONY: kernels
kernels: $(STAMP)
	@$(BIN)/python -m pipeline compile

demo: kernels
	$(BIN)/python -m pipeline demo test_input.json -o out

test: $(DEV) kernels
	$(BIN)/python -m pytest

bench: $(DEV) kernels
	$(BIN)/python -m pip install --quiet --editable ".[bench]"
	$(BIN)/python -m benchmarks

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)
	$(BIN)/mypy

schema: $(STAMP)
	$(BIN)/python -m pipeline schema --write

clean:
	rm -rf $(VENV) out build *.egg-info
