# Needs make, git and Python 3.11 to 3.13 (or uv, which can fetch Python). Everything else goes into .venv/.
#   PYTHON=...  the interpreter for a new environment (otherwise one is looked for)
#   ARGS=...    arguments passed on as the shell reads them: make train ARGS="optimizer=sgd model.dropout=0.4"

.DEFAULT_GOAL := help
.PHONY: help setup train results benchmark test test-slow test-cluster test-extras soak extras test-browser board demo docs check audit lock clean

READY := .venv/.ready
BIN := .venv/bin
PYTHON ?=
ARGS ?=
# `value`: make leaves every $ in ARGS alone, so that ${...} reaches Hydra when quoted for the shell.
args = $(value ARGS)
# `exec`: no shell stands between make and the program, so that a signal that ends make reaches it.

help: ## Show this list
	@echo 'Usage: make TARGET [ARGS="..."] [PYTHON=...]'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' Makefile

$(READY): requirements.lock pyproject.toml
	@PYTHON="$(PYTHON)" sh scripts/setup.sh

setup: $(READY) ## Prepare the environment and the dataset
	@$(BIN)/python scripts/get_data.py

train: $(READY) ## Train; ARGS are Hydra overrides (ARGS="--help" lists them)
	@exec $(BIN)/python scripts/train.py $(args)

results: $(READY) ## Measure the recipes again and write the tables; ARGS="ablations --recipes fast_92" or "--help"
	@exec $(BIN)/python tools/measure_recipes.py $(args)

benchmark: $(READY) ## Measure the speed of the parts against what they replace; ARGS="training --repetitions 9" or "--help"
	@exec $(BIN)/python tools/benchmark.py $(args)

test: $(READY) ## Run the fast tests (no dataset, no network); ARGS go to pytest
	@exec $(BIN)/python -m pytest -n auto $(args)

test-slow: extras ## Run the slow tests (minutes); ARGS go to pytest
	@exec $(BIN)/python -m pytest -m slow $(args)

test-cluster: extras ## Run the tests on servers of SLURM and PostgreSQL, where these are installed; ARGS go to pytest
	@exec $(BIN)/python -m pytest -m cluster $(args)

test-extras: extras ## Run the tests of what the optional packages add; ARGS go to pytest
	@exec $(BIN)/python -m pytest -m "extras and not slow and not browser and not cluster" $(args)

soak: $(READY) ## Half an hour of kills, faults and invalid input, and what survived; ARGS="--minutes 5" for less
	@exec $(BIN)/python tests/soak.py $(args)

extras: $(READY) ## Also install what is optional: SLURM, Ray, PostgreSQL, timm, scikit-learn's digits, cleanlab, ONNX, FastAPI, MLflow, W&B, Comet, Sphinx
	@$(BIN)/python -c 'import submitit, ray, psycopg, timm, sklearn, cleanlab, onnxruntime, onnxscript, fastapi, uvicorn, python_multipart, mlflow, wandb, comet_ml, myst_nb, furo' 2>/dev/null || REQUIREMENTS=requirements-extras.lock sh scripts/setup.sh

test-browser: $(READY) ## Look at TensorBoard and a report in headless Chromium (installed where it is missing)
	@sh scripts/chromium.sh $(BIN)/python >/dev/null
	@exec $(BIN)/python -m pytest -m browser $(args)

board: $(READY) ## Show the training curves of outputs/ with TensorBoard; ARGS go to tensorboard
	@exec $(BIN)/tensorboard --logdir outputs --host 127.0.0.1 --samples_per_plugin images=100 $(args)

demo: extras ## Serve a page that classifies pictures with the newest run; ARGS="port=8080"
	@exec $(BIN)/python scripts/demo.py run=latest $(args)

docs: extras ## Build the docs as a site in site/; ARGS="-D nb_execution_mode=force" runs the tutorial for its pictures
	@$(BIN)/python -m sphinx -W --keep-going -q docs site $(args) && echo 'open site/index.html'

check: $(READY) ## Lint, check format and types, run the fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n auto

audit: $(READY) ## Look for dangerous calls, and (with a network) for known holes in the locked packages
	$(BIN)/bandit -q -r fmnist scripts tools -c pyproject.toml
	$(BIN)/pip-audit -r requirements.lock --require-hashes --no-deps --disable-pip --strict

# No index address and no machine's path may reach the lock. One version of each package for all Pythons.
lock: ## Write both locks from pyproject.toml; ARGS="--upgrade" takes newer versions
	@uv=$$(command -v uv || echo $(BIN)/uv); \
	"$$uv" --version >/dev/null 2>&1 || { echo 'make lock needs uv: run `make setup` first.' >&2; exit 1; }; \
	compile() { "$$uv" pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --extra dev \
		--generate-hashes --no-annotate --no-emit-index-url --no-emit-find-links \
		--custom-compile-command 'make lock' $(args) "$$@" pyproject.toml; }; \
	compile -o requirements.lock && compile $(foreach name,cluster postgres digits audit timm export demo wandb mlflow comet docs,--extra $(name)) \
		--constraint requirements.lock -o requirements-extras.lock

clean: ## Remove the environment and all caches; data and outputs stay
	rm -rf .venv build site *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find fmnist scripts tools tests -name __pycache__ -type d -prune -exec rm -rf {} +
