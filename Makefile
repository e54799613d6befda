# make demo   five strategies on the shipped model, in a few minutes, and a picture of the same on pictures
# make demo-real   four strategies on a real model of 0.5 billion parameters and ten problems of GSM8K; asks before it downloads
# make test   lint, strict type check, tests
# make light PYTHON=python3.13   the tests that need no torch, on another Python
# make fuzz   the property tests of odd inputs with random examples, for a long time; EXAMPLES=20000 for longer
# make docs   the site, in build/site; a warning is an error
# make bench  speed, side by side with peers
# make experiment ROW=45   the experiment of a row of docs/catalogue.md
# make dist   wheel and source archive, in dist/
# make release-check   installs both in clean environments, runs them, and measures their size
# make lock   pins the packages of the environment in constraints.txt
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo demo-real test lint light fuzz docs bench experiment dist release-check browser bubblewrap postgres lock clean

demo: $(READY)
	$(BIN)/thinktime demo

demo-real: $(READY) bubblewrap
	$(BIN)/thinktime demo --real

test: $(READY) lint browser bubblewrap postgres
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# search, bank, gateway and remote models; local models need torch
LIGHT := answers architecture bank budget deploy environments gateway_budgets parts project remote sandbox scores search selection trace
OTHER := build/$(notdir $(PYTHON))
light:
	$(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/pip install --quiet -c constraints.txt -e '.[serve,bench]' hypothesis markdown-it-py packaging pytest pyyaml
	$(OTHER)/bin/python -m compileall -q src tests experiments benchmarks training
	$(OTHER)/bin/python -m pytest $(LIGHT:%=tests/test_%.py)

EXAMPLES ?= 5000
fuzz: $(READY)
	EXAMPLES=$(EXAMPLES) $(BIN)/pytest -n 2 tests/test_fuzz.py --hypothesis-profile=fuzz --tb=short

# the report and the page of the gateway are tested in a real browser; where none can be installed those tests skip and say so
browser:
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	    apt-get install -y -qq chromium >/dev/null 2>&1; } || echo "no chromium: the browser tests will skip"

# the sandbox of programs; where it cannot be installed its tests skip and say so
bubblewrap:
	@command -v bwrap >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	    apt-get install -y -qq bubblewrap >/dev/null 2>&1; } || echo "no bubblewrap: the sandbox tests will skip"

# a server of shared banks; where it cannot be installed its tests skip and say so
postgres:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	    apt-get install -y -qq postgresql >/dev/null 2>&1; } || echo "no Postgres: the tests of shared banks will skip"

docs: $(READY)
	$(BIN)/python -m sphinx -q -W --keep-going -d build/pages -c docs . build/site
	@echo "build/site/index.html"

bench: $(READY)
	$(BIN)/python -m benchmarks.engine.run

# the wheel is built from the source archive, so both are complete
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

release-check: dist
	$(BIN)/python -m benchmarks.install.run dist

# a local version such as +cpu is cut off: other indexes do not have it
lock: | $(READY)
	$(BIN)/pip list --format=freeze --exclude-editable --exclude pip > $(VENV)/packages
	{ grep '^#' constraints.txt; sed 's/+.*//' $(VENV)/packages; } > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt

experiment: $(READY)
	@$(BIN)/python -m experiments $(ROW)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -c constraints.txt -e '.[images,dev]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist
