# What can be done here; `make` alone lists it.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BACKENDS := .venv-backends
TORCH ?= torch==2.13.0
HTML := _build/html
BUILT := _build/.complete
PAPER := _build/paper
EBOOK := _build/ebook
BACKEND_TESTS := OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/src $(BACKENDS)/bin/python -m pytest \
	tests/backends -q -n 2 --dist loadscope -o addopts=--strict-markers
EXTRAS := keras lab book test check
BOOK_SOURCES := _config.yml _toc.yml $(shell find book src notebooks tools -type f \
	-not -path '*/.ipynb_checkpoints/*' -not -path '*/__pycache__/*' -not -path '*/node_modules/*')

.DEFAULT_GOAL := help
.PHONY: help book test test-backends browser explorables learning lab offline student pdf epub serve notebooks check links lock robust clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: $(BUILT) ## build the HTML book from the stored outputs
	@echo
	@echo "The book's first page: $(CURDIR)/$(HTML)/index.html"
	@echo "To serve it on this machine: make serve"

test: $(STAMP) ## run the package's tests and recompute every number and figure of the notebooks
	$(BIN)/python -m pytest tests src README.md notebooks -m "not built" \
		--nbval --nbval-current-env -n 2 --dist loadscope --ignore tests/browser

# Both frameworks live in an environment of their own, so that `make test` and `make book` need neither.
test-backends: $(BACKENDS)/.installed ## test gradutils with PyTorch and with Keras on PyTorch and JAX
	KERAS_BACKEND=torch $(BACKEND_TESTS) --doctest-modules src/gradutils/torch_monitor.py src/gradutils/_torch
	KERAS_BACKEND=jax $(BACKEND_TESTS)

browser: book ## test the live figures and the built pages in Chromium
	$(BIN)/python -m pytest -q tests/browser -n 2 --dist loadscope

explorables: $(STAMP) ## build the script of the live figures from book/explorables (needs Node 20 or newer)
	cd book/explorables && npm ci --omit-lockfile-registry-resolved && PYTHON=$(abspath $(BIN))/python npm run build

learning: ## build the script of predictions and answers from book/learning (needs Node 20 or newer)
	cd book/learning && npm ci --omit-lockfile-registry-resolved && npm run build

lab: $(STAMP) ## open the notebooks in JupyterLab
	TF_ENABLE_ONEDNN_OPTS=0 $(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/notebooks

offline: book ## pack the HTML book into one archive that opens from the disk, below dist
	$(BIN)/python -m tools.offline
	$(BIN)/python -m pytest -q tests/book/test_offline.py -m built

student: $(STAMP) ## pack the notebooks with empty cells in place of the solutions, below dist
	$(BIN)/python -m tools.student

pdf: $(STAMP) ## set the book on paper, below dist (needs LaTeX and poppler)
	@for tool in xelatex latexmk pdftotext; do command -v $$tool >/dev/null \
		|| { echo "make pdf needs $$tool. On Debian and Ubuntu: apt install latexmk texlive-xetex" \
		"texlive-latex-extra texlive-fonts-recommended tex-gyre fonts-texgyre fonts-texgyre-math fonts-dejavu fonts-freefont-otf poppler-utils" >&2; exit 1; }; done
	$(BIN)/jupyter-book build . --all --builder latex -n -W --keep-going --path-output $(PAPER)
	cd $(PAPER)/_build/latex && latexmk -gg -xelatex -interaction=nonstopmode -halt-on-error *.tex >/dev/null
	mkdir -p dist && cp $(PAPER)/_build/latex/*.pdf dist
	$(BIN)/python -m pytest -q tests/book/test_pdf.py

epub: $(STAMP) ## write the book for e-book readers, below dist
	$(BIN)/jupyter-book build . --all --builder custom --custom-builder epub -n -W --keep-going \
		--path-output $(EBOOK)
	mkdir -p dist && cp $(EBOOK)/_build/epub/*.epub dist
	$(BIN)/python -m pytest -q tests/book/test_epub.py

serve: book ## serve the built book at http://localhost:8000 (another port: PORT=8001)
	@echo "Open http://localhost:$(PORT)/ and stop with Ctrl-C."
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory $(HTML) $(PORT)

notebooks: $(STAMP) ## execute the notebooks in place; nothing is written where nothing changed
	$(BIN)/python -m tools.notebooks

check: $(STAMP) ## lint, types, imports, links, notebook hygiene and the rules of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry src book/_ext book/print tools tests benchmarks notebooks
	$(BIN)/python -m tools.notebooks --check
	$(BIN)/python -m pytest -q tests/package/test_house.py tests/book/test_sources.py tests/book/test_ways_in.py

links: $(STAMP) ## ask every address that the book names whether it still answers (needs the web)
	$(BIN)/jupyter-book build . --all --builder linkcheck --path-output _build/links

lock: $(STAMP) ## renew both locks from pyproject.toml (newest versions: make lock UV=--upgrade)
	@$(BIN)/python -m uv --version 2>/dev/null \
		|| { echo "make lock needs uv. Get it with: $(BIN)/python -m pip install uv" >&2; exit 1; }
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/python -m uv pip compile pyproject.toml \
		--universal --python-version 3.11 $(patsubst %,--extra %,$(EXTRAS)) --generate-hashes \
		--no-emit-index-url --no-annotate --quiet -o requirements.lock $(UV)
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/python -m uv pip compile pyproject.toml \
		--universal --python-version 3.11 --extra backends --generate-hashes \
		--no-emit-index-url --no-annotate --quiet -o backends.lock $(UV)

robust: $(STAMP) ## recompute the notebooks and run the tests under other arithmetic, thread counts and noise (slow)
	$(BIN)/python -m tools.robustness

clean: ## remove the built book and all caches (the environment .venv stays)
	rm -rf _build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find benchmarks book src notebooks tests tools -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# The environment: exactly the locked versions, and gradutils itself from src.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c '' 2>/dev/null \
		|| { echo "$(PYTHON) is not there. Name a Python 3.11 to 3.13: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
		|| { echo "$(PYTHON) is $$($(PYTHON) -V), and 3.11 to 3.13 are supported." \
			"Name one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "$(PYTHON) has no venv module (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Torch's wheels for CPUs and for GPUs share one version, so it stands in no lock. Where the registry's
# wheel is the one for GPUs, TORCH="torch==2.13.0 --index-url ..." takes the one of torch's own index.
$(BACKENDS)/.installed: backends.lock pyproject.toml
	$(PYTHON) -m venv --clear $(BACKENDS)
	$(BACKENDS)/bin/python -m pip install --disable-pip-version-check --require-hashes -r backends.lock
	$(BACKENDS)/bin/python -m pip install --disable-pip-version-check --no-deps $(TORCH)
	@touch $@

# Always the whole book: a partial build would not repeat the warnings of unchanged pages.
$(BUILT): $(STAMP) $(BOOK_SOURCES)
	rm -rf _build
	$(BIN)/jupyter-book build . --all -n -W --keep-going
	$(BIN)/python -m pytest -q tests/book/test_pages.py tests/book/test_formulas.py -m built
	@touch $@
