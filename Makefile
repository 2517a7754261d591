# minijwt: nothing to build, nothing to install.
PYTHON ?= python3
VENV ?= .venv
# pytest is only for the tests: the one there is, or one in .venv.
PYTEST = $(shell $(PYTHON) -c 'import pytest' 2>/dev/null && echo $(PYTHON) || echo $(VENV)/bin/python) -m pytest -q

help: ## show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

run: ## start the server on http://localhost:8000
	@$(PYTHON) server.py

test: $(VENV) ## run the tests, in three parts at once (makes .venv with pytest if there is no pytest)
	@out=$$(mktemp -d); $(PYTEST) tests/test_server_0* tests/test_server_16_* tests/test_attacks.py >$$out/1 2>&1 & one=$$!; \
	$(PYTEST) tests/test_server_1[0-57]* tests/test_from_the_field.py >$$out/2 2>&1 & two=$$!; \
	$(PYTEST) $$(ls tests/test_*.py | grep -Ev '_server_|attacks|field|browser'); \
	status=$$?; wait $$one || status=$$?; wait $$two || status=$$?; cat $$out/*; rm -r $$out; exit $$status

test-all: ## run the tests on every Python from 3.9 on that is installed
	@$(PYTHON) tests/pythons.py

prove: $(VENV) ## the long proof, some minutes: a real browser, fuzzing, load, etcd under faults, mutants
	$(PYTEST) tests/test_browser.py
	LONG=1 HUNDREDS=10 $(PYTEST) tests/test_server_04_* tests/test_server_1[36]_* tests/test_[adefr]*
	$(PYTHON) tests/prove/fuzz.py 30
	$(PYTHON) tests/prove/wire.py 30000
	$(PYTHON) tests/prove/fire.py
	$(PYTHON) tests/prove/cluster.py --short
	PYTHON=$(firstword $(PYTEST)) $(firstword $(PYTEST)) tests/prove/mutants.py

cluster: ## three nodes of etcd and three servers under faults, some minutes (with Debian's etcd-server)
	$(PYTHON) tests/prove/cluster.py

attacks: ## attacks, told and performed: a naive twin falls, this server does not: make attacks [NAME="none"]
	@$(PYTHON) tests/attacks $(NAME)

break: ## remove one line of defence in a copy: the attack succeeds, a test goes red: make break NAME="none"
	@$(PYTHON) tests/attacks --break $(NAME)

exercise: ## build your own minijwt, stage by stage: make exercise MINE=path/to/yours.py
	@$(PYTHON) tests/exercise "$(MINE)" $(STAGE) || test $$? -eq 1

bench: ## measure against the bare HMAC, PyJWT, uvicorn, Express …; writes dist/bench.md
	$(PYTHON) tests/bench

dist: ## make what an operator carries: dist/minijwt.pyz with everything in it, dist/deploy, dist/SHA256SUMS
	@$(PYTHON) tests/dist.py

screenshot: ## take pictures of the page at /, in dist/ (with Debian's chromium and chromium-driver)
	$(PYTHON) tests/screenshot.py

clean: ## remove what make has made
	rm -rf $(VENV) dist .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV):
	@$(PYTHON) -c 'import pytest' 2>/dev/null || { $(PYTHON) -m venv $(VENV) && $(VENV)/bin/pip install -q pytest; } \
	|| { rm -rf $(VENV); echo "make: there is no pytest, and $(VENV) could not be made" >&2; exit 1; }

.PHONY: help run test test-all prove cluster attacks break exercise bench dist screenshot clean
