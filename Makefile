# make ablation  generate the synthetic people and compare ICNet's class weightings
# make test      lint, then every test that is not slow
# make test-all  lint, then every test
# make lint      ruff (rules and format) and pyright (types; not the networks)
# make venv      make .venv and install the package with EXTRAS
# make clean     remove .venv and everything that was built
#
# Variables: PYTHON, VENV, EXTRAS (of setup.cfg), ARGS (to run.py or pytest), JOBS
# (processes of the tests)

PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= cpu,test
ARGS ?=
JOBS ?= 2
PY := $(VENV)/bin/python

# Packages are installed without bytecode. In an environment that forbids writing it,
# every process would compile TensorFlow again (14 s of processor time).
export PYTHONDONTWRITEBYTECODE :=

.PHONY: ablation test test-all lint venv clean

ablation: EXTRAS := cpu,video
ablation: venv
	$(PY) ablations/run.py --net icnet --stage weighting $(ARGS)

test: venv lint
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-all: venv lint
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m "" $(ARGS)

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY)

venv: $(VENV)/bin/python
	@stamp="$(VENV)/.installed-$$(echo '$(EXTRAS)' | tr ',' '-')"; \
	if [ ! -e "$$stamp" ] || [ setup.cfg -nt "$$stamp" ]; then \
	  $(PY) -m pip install --quiet --no-compile -e '.[$(EXTRAS)]' && touch "$$stamp"; \
	fi

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
	  "error: Python: %d.%d; expected 3.11 or newer, PYTHON=... names one" \
	  % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache
