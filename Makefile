# Two commands do everything: `make demo` and `make test`. Both need Python 3.11, make and a package registry.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The long campaigns also want, on Debian: apt-get install iproute2 nftables strace faketime e2fsprogs (and root).
.PHONY: demo test conformance controls explore chaos nightly check format proto proto-check lock bench clean deploy-check

demo: $(READY)  ## Place real orders through the system, break it half-way, and print what came of it.
	$(BIN)/orders demo

test: check  ## The whole suite, a real nats-server included.
	$(BIN)/python -m pytest -n 2 --dist worksteal

conformance: $(READY)  ## What an Erlang engineer would ask of supervisors, item by item, and whether it holds.
	$(BIN)/python tests/supervisors/conformance.py

controls: $(READY)  ## Fifteen planted bugs, and whether each is caught.
	CONTROL_ROWS=1 $(BIN)/python tests/controls/score.py

explore: $(READY)  ## 20,000 runs of the real actors under faults, in virtual time.
	$(BIN)/orders explore --seeds 20000 --jobs 2

chaos: $(READY)  ## Every row of faults that this machine can do, on one broker and on three.
	$(BIN)/orders chaos --all --brokers 1
	$(BIN)/orders chaos --all --brokers 3

nightly: test conformance controls explore chaos  ## Everything, for hours.
	MODEL_EXAMPLES=100000 $(BIN)/python -m pytest tests/supervisors/test_model.py --timeout 7200

check: $(READY) proto-check deploy-check  ## Formatting, lint, types, import rules, generated code.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(READY)  ## Generate messages/generated from messages/proto.
	$(BIN)/python messages/generate.py

proto-check: $(READY)
	$(BIN)/python messages/generate.py --check

deploy-check: $(READY)
	$(BIN)/yamllint --strict -c deploy/yamllint.yaml deploy

bench: $(READY)
	$(BIN)/orders bench

lock: $(READY)  ## Write the lock files anew from pyproject.toml: hashes, no addresses.
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --upgrade pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header -c requirements.lock --group dev pyproject.toml -o requirements-dev.lock

$(READY): requirements-dev.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
