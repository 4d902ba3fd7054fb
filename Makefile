# Each target does all of its own set-up in .venv; nothing outside it is touched.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-all check clean

demo: .venv/installed
	$(BIN)/msa2net demo

test: check
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadscope -m "not slow"

test-all: check
	$(BIN)/python -m pytest -q -o faulthandler_timeout=3600 --hypothesis-profile=thorough --cov --cov-report=term:skip-covered

check: .venv/installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[baselines,dicom,onnx,test]"
	touch $@
