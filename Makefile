# Every target installs what it needs first. `make` alone lists them.
PYTHON ?= python3
RUN := .venv/bin/python
# pytest's -m takes one expression: what `make test` leaves out.
QUICK := not slow and not kill

.PHONY: help setup demo ablation test test-slow kill-test faults lint bench lock clean
.DEFAULT_GOAL := help

help:  ## Lists these targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: .venv/ready  ## Makes .venv and installs the locked packages; does nothing when current.

.venv/ready: setup.py requirements/locked.txt requirements/install.py
	@command -v $(PYTHON) > /dev/null || { echo "There is no $(PYTHON) on the PATH. Install \
	Python 3.11, 3.12 or 3.13, or name one: make setup PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) requirements/install.py

demo: .venv/ready  ## Prepares, trains, evaluates and answers on the demo tasks; a few minutes.
	@bash launch/demo.sh

ablation: .venv/ready  ## Compares training with and without rationales, and with fewer tasks.
	@$(RUN) benchmarks/ablation.py

test: .venv/ready  ## Runs the tests, without the slow ones.
	@$(RUN) -m pytest -q -m '$(QUICK)' -n auto --maxprocesses=4 --dist worksteal

test-slow: .venv/ready  ## Runs the slow tests.
	@$(RUN) -m pytest -q -m 'slow and not kill'

kill-test: .venv/ready  ## Kills training twenty times and compares the resumed runs.
	@$(RUN) -m pytest -q -m kill

faults: .venv/ready  ## Kills, stops, starves and damages training runs; see docs/faults.md.
	@$(RUN) benchmarks/faults

lint: .venv/ready  ## Checks style, format and types.
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m pyright

BENCH := runs/benchmarks
bench: .venv/ready  ## Installs PyTorch and Transformers, and runs the benchmarks beside them.
	@$(RUN) -m pip install --quiet -r requirements/bench.txt
	@mkdir -p $(BENCH)
	@$(RUN) benchmarks/train_step.py --out $(BENCH)/1_small.json
	@$(RUN) benchmarks/train_step.py --model t5_1_1_base --rows 2 --out $(BENCH)/2_base.json
	@$(RUN) benchmarks/train_step.py --model smollm2_135m --rows 2 --out $(BENCH)/3_llama.json
	@$(RUN) benchmarks/startup.py --out $(BENCH)/4_startup.json
	@$(RUN) benchmarks/data_pipeline.py --seqio --out $(BENCH)/5_data.json
	@$(RUN) benchmarks/prepare.py --out $(BENCH)/6_prepare.json
	@$(RUN) benchmarks/decode.py --out $(BENCH)/7_decode.json
	@$(RUN) benchmarks/decode.py --rows 32 --repeats 1 --out $(BENCH)/8_decode.json
	@$(RUN) benchmarks/page.py $(BENCH)/*.json
	@$(RUN) benchmarks/checkpoint.py

# What is pinned stays pinned unless setup.py forbids it; UPGRADE=1 takes the newest of everything.
LOCKED := requirements/locked.txt
COMPILE := .venv/bin/uv pip compile setup.py --universal --python-version 3.11 --quiet \
  --annotation-style line $(if $(UPGRADE),--upgrade) \
  --custom-compile-command 'make lock  (setup.py gives the reason of each limit)'

lock:  ## Writes requirements/*.txt from setup.py; UPGRADE=1 takes the newest versions.
	@test -x .venv/bin/uv || { echo "Run make setup first: it installs uv." >&2; exit 1; }
	@$(COMPILE) --extra seqio --extra ifeval --extra dev -o $(LOCKED)
	@$(COMPILE) --extra bench -c $(LOCKED) $(CUDA) -o requirements/bench.txt

# The benchmarks compare on the CPU: PyTorch's gigabytes of CUDA libraries stay out of the lock.
CUDA := $(addprefix --no-emit-package ,triton cuda-bindings cuda-pathfinder cuda-toolkit \
  $(addprefix nvidia-,cublas cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand \
  cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx))

clean:  ## Removes .venv and what tools left behind; runs/ stays.
	@rm -rf .venv .venv.removed build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
