# `make export` and `make test` work on a fresh machine: they make .venv and install what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# On a machine whose registry offers a small CPU build of torch, TORCH=torch==VERSION selects it.
TORCH ?= torch

.PHONY: export test check install install-dev clean

export: install
	$(BIN)/swise-export --fp16

test: install-dev check
	$(BIN)/pytest -q

check: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

install: $(VENV)/.installed
install-dev: $(VENV)/.installed-dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable '.[export]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet "$(TORCH)"
	$(BIN)/pip install --quiet --editable '.[export,train,rtx,openvino,video,dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache

# Outside `make test`: other interpreters, and arm64 under QEMU (needs root; minutes).
.PHONY: test-pythons test-arm64
test-pythons:
	tests/interpreters/run.sh

test-arm64: install
	$(BIN)/swise-export --fp16 -o out/arm64/swisenet_x2_fp16.onnx
	$(BIN)/swise-export --int8 -o out/arm64/swisenet_x2_int8.onnx
	sudo env PYTHON=$(abspath $(BIN)/python) tests/arm64/run.sh out/arm64/*.onnx
