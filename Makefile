# make demo   sets everything up and runs the main job on the embedded model
# make test   sets everything up and runs all the tests
# make lint   ruff, the type checker and the layers
# make coverage  the tests, with the lines that none of them reaches
# make docs   the documentation as a site, in site/
# make bench  the speed requirements, measured here
# Nothing but python3 (3.11 or newer) and make is needed beforehand.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint coverage docs bench clean

demo: $(STAMP)
	$(BIN)/weightsteer replicate

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --cov=weightsteer --cov-report=term-missing:skip-covered

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[docs]'
	$(BIN)/zensical build --clean --strict -f mkdocs.yml
	@echo site/index.html

bench: $(STAMP)
	for each in sweep_speed pocket_overhead overhead; do $(BIN)/python benchmarks/$$each.py || exit; done

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("weightsteer needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) out site
