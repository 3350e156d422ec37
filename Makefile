# The course's tasks. On Windows, or without make, the README has the same in uv commands.
#   make lab     set up and open the course in JupyterLab
#   make test    set up and run the checks
#   make test-long  what repeats them: whole banks, more kills, more attacks
#   make test-exercises  grade every bank of right and wrong submissions
#   make test-grading  put `qlearn grade` to the test
#   make bench-grading  measure `qlearn grade` beside nbgrader (bench/grading.md)
#   make bench-steady  measure what other programs on the machine do to lessons and exercises
#   make bench-setup  measure how long `make lab` takes from a fresh clone
#   make bench   measure each technique on each model (bench/results.md)
#   make site    build the course as pages with outputs, into build/site
#   make slides  a deck for each lesson, with notes for its speaker, into build/slides
#   make release write notebooks/exercises anew from solutions
#   make lock    resolve pyproject.toml anew into requirements.lock
#
# KIT=/media/usb, or the address of a served kit, sets up from it, without a network.
# TORCH_BACKEND=cpu takes PyTorch's small CPU build (Linux) instead of the CUDA one.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# The machine's own uv when it has one, else one installed by pip into the environment.
UV = $(shell command -v uv || echo $(BIN)/uv)

ifdef TORCH_BACKEND
# The CPU build has hashes of its own, which the lock does not hold: the versions are the lock's.
INSTALL = --constraints requirements.lock --no-verify-hashes \
	--torch-backend $(TORCH_BACKEND) --editable '.[test]'
else
INSTALL = --requirements requirements.lock
endif

.PHONY: lab test test-long test-exercises test-grading prepare setup bench bench-grading bench-steady \
	bench-setup lock clean release site slides

# Base models that are missing are made while JupyterLab is open. LAB holds more options, as in
# make lab LAB="--no-browser --port 8890"
lab: setup
	$(BIN)/qlearn lab $(LAB)

# Every test has one thread, and as many run at once as there are cores (tests/conftest.py says which
# first). Each starts many processes: what Python has compiled for one of them must be kept.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/pytest \
	--numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

test: prepare
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) -m "not long"

# What `make test` leaves out.
test-long: prepare
	$(PYTEST) -m long

# The banks of right and wrong submissions, whole.
test-exercises: prepare
	$(PYTEST) tests/exercises

# What `qlearn grade` promises: sandboxes, hostile work, faults, a cluster, nbgrader's own grades.
test-grading: prepare
	$(PYTEST) tests/grading

# An hour and a half on two cores, the longer part of it nbgrader under attack. A small trial:
# BENCH="--size 4 --trivial 80" HOSTILE="--every 20"
bench-grading: prepare
	$(BIN)/python tests/grading/benchmark.py $(BENCH)
	$(BIN)/python tests/grading/benchmark_hostile.py $(HOSTILE)

# Some hours on two cores. A small trial: STEADY="--parts lessons --only 02"
bench-steady: prepare
	$(BIN)/python tests/benchmarks/steady.py $(STEADY)

prepare: setup
	$(BIN)/qlearn prepare

# JupyterLab is to open within 45 s of a fresh clone, from uv's cache, on two cores.
bench-setup: setup
	$(BIN)/python tests/benchmarks/setup.py

bench: prepare
	$(BIN)/python tests/benchmarks/bench.py --output bench/results.md

setup: $(INSTALLED)

$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "qlearn needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is another:" \
	    "name one, as in: make lab PYTHON=python3.12" >&2; exit 1; }
ifdef KIT
	$(PYTHON) qlearn/room/kit/install.py $(KIT) .
else
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	command -v uv >/dev/null || test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet uv
	$(UV) pip install --python $(BIN)/python $(INSTALL)
	$(UV) pip install --python $(BIN)/python --no-deps --editable .
endif
	touch $@

lock:
	$(UV) pip compile pyproject.toml --extra test --extra site --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --upgrade --output-file requirements.lock

# The pages need nothing from elsewhere: what formulas and tests load comes from npm, once. Lessons
# are executed where they have changed; QLEARN_SITE_EXECUTION=off leaves their outputs out.
site: setup build/npm/.installed
	$(BIN)/sphinx-build -q -W --keep-going -c notebooks/site notebooks build/site

# Outputs are those that `make site` has left in its cache.
slides: setup build/npm/.installed
	$(BIN)/python notebooks/site/slides.py build/slides

build/npm/.installed: notebooks/site/package.json notebooks/site/package-lock.json
	mkdir -p build/npm
	cp $^ build/npm
	cd build/npm && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

clean:
	rm -rf .venv

# The released exercises are made from solutions/ and never edited by hand.
release: setup
	for source in solutions/*/; do \
	  $(BIN)/nbgrader generate_assignment "$$(basename $$source)" --no-db --force || exit 1; done
