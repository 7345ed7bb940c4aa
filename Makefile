# `make export` and `make test` work on a fresh machine: they make .venv and install what they need.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Any pip arguments select another torch, such as TORCH="torch --index-url https://download.pytorch.org/whl/cpu".
TORCH ?= torch
PYTEST_FLAGS ?=
# Each word of TORCH in quotes, so that torch>=2.6 redirects nothing.
INSTALL_TORCH = $(BIN)/pip install $(foreach word,$(TORCH),'$(word)')

.PHONY: export test check install install-dev docs wheel dist clean

export: install
	$(BIN)/swise-export --fp16

test: install-dev check
	$(BIN)/pytest -q $(PYTEST_FLAGS)

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
	@echo "installing $(TORCH) into $(VENV), up to 3 GB where it is the CUDA build"
	$(INSTALL_TORCH)
	$(BIN)/pip install --quiet --editable '.[cpu,export]'
	touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "installing $(TORCH) into $(VENV), up to 3 GB where it is the CUDA build"
	$(INSTALL_TORCH)
	$(BIN)/pip install --quiet --editable '.[cpu,export,train,rtx,openvino,video,completion,nvml,dev]'
	touch $@

# The site of docs/, in site/; a broken link or an undocumented name fails it.
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.installed-docs: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[docs]'
	touch $@

# One file that installs on a machine without the checkout: dist/swise_deploy-VERSION-py3-none-any.whl.
wheel: | $(BIN)/python
	$(BIN)/pip wheel --quiet --no-deps --wheel-dir dist .
	@ls dist/*.whl

dist: | $(BIN)/python
	$(BIN)/pip install --quiet build twine
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache

# Damaged files, kills and full disks; its figures stand in docs/security.md. It takes tens of minutes.
.PHONY: test-hostile
test-hostile: install-dev
	$(BIN)/python -m tests.hostile

# Outside `make test`: other interpreters, and arm64 under QEMU (needs root; minutes).
.PHONY: test-pythons test-arm64
test-pythons:
	tests/interpreters/run.sh

test-arm64: install
	$(BIN)/swise-export --fp16 -o out/arm64/swisenet_x2_fp16.onnx
	$(BIN)/swise-export --int8 -o out/arm64/swisenet_x2_int8.onnx
	sudo env PYTHON=$(abspath $(BIN)/python) tests/arm64/run.sh out/arm64/*.onnx
