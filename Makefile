# `make run` opens the lab on this repository, `make test` tests it; both set up what is missing, once.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.DEFAULT_GOAL := run
.PHONY: run test check bench clean

run: $(READY)
	@$(BIN)/python -m trainer.prepare
	@$(BIN)/labtop run

# Workers: one more than two cores have, since many tests wait for processes of their own. Compiled modules are kept,
# whatever the environment says: each of those processes would compile them anew.
WORKERS ?= 3
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(TESTS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python benchmarks/overhead.py --check
	$(BIN)/python benchmarks/trainer.py --check
	$(BIN)/python benchmarks/briefing.py --check
	$(BIN)/python benchmarks/cockpit.py --check

# torch goes in first and alone, so that no resolver swaps the pinned build for another while it works out the rest.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "labtop needs Python 3.11 or newer; name one with: make PYTHON=python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV), once (a few minutes, about 1.5 GB): torch first"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt "$$(grep '^torch==' constraints.txt)"
	@echo "then everything else"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info
