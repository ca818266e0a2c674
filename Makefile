# `make` lists what there is. A target sets up what it needs; `PYTHON=…` names the interpreter that
# `.venv` is made with, `ARGS=…` goes on to what the target runs.

RUN = .venv/bin/python -m

.PHONY: help demo up test check bench cost chaos mutants pins tables clean

help:  ## List these
	@awk -F':  ## ' '/^[a-z]+:  ## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

demo:  ## Schedule one post to three platforms and see it published (15 s; the first time a minute)
	@PYTHON="$(PYTHON)" tools/set-up runtime
	@exec $(RUN) tests.sandbox demo $(ARGS)

up:  ## The same system until Ctrl-C, with curl lines to paste and a log to read
	@PYTHON="$(PYTHON)" tools/set-up runtime
	@exec $(RUN) tests.sandbox up $(ARGS)

test:  ## Every test, on as many systems as cores, 4 at most (ARGS="tests/domain -k leases" chooses)
	@PYTHON="$(PYTHON)" tools/set-up dev
	@exec $(RUN) pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile $(ARGS)

check:  ## Lint, format, types
	@PYTHON="$(PYTHON)" tools/set-up dev
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

bench:  ## What a post costs, beside its budgets; fails when one is broken (ARGS=--long: files, syncs)
	@PYTHON="$(PYTHON)" tools/set-up runtime
	@exec $(RUN) tests.sandbox bench $(ARGS)

cost:  ## What it costs idle and per 1,000 posts, by list prices
	@PYTHON="$(PYTHON)" tools/set-up runtime
	@exec $(RUN) tools.cost

chaos:  ## Break a delivery at every effect, send a thousand in a storm, try a model (ARGS="storm --posts 300")
	@PYTHON="$(PYTHON)" tools/set-up dev
	@$(if $(ARGS),exec $(RUN) tests.chaos $(ARGS),$(RUN) tests.chaos points && $(RUN) tests.chaos storm && MODEL_EXAMPLES=300 $(RUN) pytest tests/behaviour/test_model.py)

mutants:  ## Take one guard away at a time and show which test notices (ARGS=sendBy: that one)
	@PYTHON="$(PYTHON)" tools/set-up dev
	@exec $(RUN) tools.mutants $(ARGS)

pins:  ## Write the requirement files from pyproject.toml (ARGS=--upgrade: newest versions)
	@PYTHON="$(PYTHON)" tools/set-up dev
	@exec $(RUN) tools.pins $(ARGS)

tables:  ## Write README's tables of platforms from what the adapters declare
	@PYTHON="$(PYTHON)" tools/set-up runtime
	@exec $(RUN) tools.tables

clean:  ## Remove what was set up and cached
	rm -rf .venv .build .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
