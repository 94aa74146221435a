"""Serves a policy of LeRobot's over openpi's protocol; runs in LeRobot's own interpreter.

    .venv-lerobot/bin/python -m e0_policy.lerobot_server FOLDER --address 127.0.0.1:8000

A request has the policy's own names: images `uint8 (height, width, 3)`, `observation.state` `(n,)`, `task`, `e0/seed`;
with several observations the arrays have a first axis for them, the present one last. The reply has `actions`
`(rows, columns)`, not normalised.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from e0_policy.lerobot_folder import ACTION, STATE, TASK, read_folder, step_names
from e0_policy.policy_server import make_server, port_of

SEED = "e0/seed"
FETCHING: dict[str, Any] = {"pretrained_backbone_weights": None, "load_vlm_weights": False, "compile_model": False}
"""Settings of LeRobot's that fetch what the folder has already, or compile for minutes."""
OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")


class LeRobotPolicy:
    """A policy and its processors.

    Args:
        folder: `pretrained_model`.
        device: torch device.
        overrides: of its configuration, by name; a text tokenizer is named by `tokenizer`.

    Raises:
        ValueError: LeRobot does not load it.

    """

    def __init__(self, folder: Path, device: str = "cpu", overrides: Mapping[str, str] | None = None) -> None:
        from lerobot.configs.policies import PreTrainedConfig
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors

        chosen = dict(overrides or {})
        tokenizer = chosen.pop("tokenizer", "")
        config = PreTrainedConfig.from_pretrained(folder)
        config.device = device
        for name, off in FETCHING.items():
            if hasattr(config, name):
                setattr(config, name, off)
        for name, value in chosen.items():
            if not hasattr(config, name):
                raise ValueError(f"{config.type} has no setting {name!r}")
            setattr(config, name, value)
        self._policy = get_policy_class(config.type).from_pretrained(folder, config=config)
        self._policy.eval()
        self._images = list(config.image_features)
        before: dict[str, Any] = {"device_processor": {"device": device}}
        if tokenizer and "tokenizer_processor" in step_names(folder):
            before["tokenizer_processor"] = {"tokenizer_name": tokenizer}
        self._before, self._after = make_pre_post_processors(
            config, str(folder), preprocessor_overrides=before, postprocessor_overrides={}
        )

    def infer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Rows for a request.

        Raises:
            ValueError: an image or the state is missing.

        """
        import torch

        needed = [*self._images, *([STATE] if STATE in self._policy.config.input_features else [])]
        if missing := [name for name in needed if name not in request]:
            raise ValueError(f"{missing[0]!r} is missing; got {', '.join(map(str, request))}")
        torch.manual_seed(int(request.get(SEED, 0)))
        arrays = {name: np.asarray(request[name]) for name in needed}
        several = arrays[needed[0]].ndim == (4 if needed[0] in self._images else 2)
        steps = range(len(arrays[needed[0]])) if several else (None,)
        with torch.inference_mode():
            self._policy.reset()
            batches = [self._batch({n: a if i is None else a[i] for n, a in arrays.items()}, request) for i in steps]
            rows = self._plan(batches)
        return {"actions": rows}

    def _batch(self, arrays: Mapping[str, np.ndarray[Any, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
        """One observation through LeRobot's own processor."""
        import torch

        values: dict[str, Any] = {TASK: str(request.get(TASK, ""))}
        for name, array in arrays.items():
            tensor = torch.from_numpy(np.array(array, np.float32))
            values[name] = tensor.permute(2, 0, 1).contiguous() / 255.0 if name in self._images else tensor
        batch: dict[str, Any] = self._before(values)
        return batch

    def _plan(self, batches: Sequence[dict[str, Any]]) -> np.ndarray[Any, Any]:
        """The chunk after some observations, the present one last."""
        import torch

        policy, last = self._policy, dict(batches[-1])
        last.pop(ACTION, None)
        queues = getattr(policy, "_queues", None)
        if queues and STATE in queues:  # policies that look back keep what they saw in queues of their own
            from lerobot.policies.utils import populate_queues

            for batch in batches:
                populate_queues(queues, self._stacked(batch), exclude_keys=[ACTION])
            last = self._stacked(last)
        chunk = policy.predict_action_chunk(last)[0]
        rows = self._after(chunk)
        if not torch.isfinite(rows).all():
            raise ValueError("the network's answer is not finite; are its weights damaged?")
        answer: np.ndarray[Any, Any] = rows.float().cpu().numpy()
        return answer

    def _stacked(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """With its images under the one name that LeRobot's queues have for them."""
        import torch
        from lerobot.utils.constants import OBS_IMAGES

        return {**batch, OBS_IMAGES: torch.stack([batch[name] for name in self._images], dim=-4)}


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until interrupted, or until standard input ends with `--until-eof`."""
    p = argparse.ArgumentParser(prog="python -m e0_policy.lerobot_server", description=__doc__.splitlines()[0])
    p.add_argument("folder", type=Path, help="a pretrained_model folder of LeRobot's (safetensors)")
    p.add_argument("--address", default="127.0.0.1:8000", help="HOST:PORT, or unix://PATH (default: 127.0.0.1:8000)")
    p.add_argument("--device", default="auto", help="torch device (default: a GPU if there is one)")
    p.add_argument("--threads", type=int, default=0, help="of the CPU; 0: torch's own number")
    p.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of LeRobot's configuration")
    p.add_argument("--online", action="store_true", help="let LeRobot fetch tokenizers and backbones from the hub")
    p.add_argument("--until-eof", action="store_true", help="end when standard input does")
    p.add_argument("--owned", default="", metavar="FOLDER", help="with --until-eof: remove this folder at the end")
    options = p.parse_args(argv)
    if options.until_eof:
        threading.Thread(target=_end_with_input, args=(options.owned,), daemon=True).start()
    if not options.online:
        os.environ.update(dict.fromkeys(OFFLINE, "1"))
    found = read_folder(options.folder)
    if find_spec("lerobot") is None:
        print(f"{sys.executable} has no lerobot: make lerobot-venv, or pip install 'lerobot[smolvla]==0.4.4'")
        return 1
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    overrides = dict(word.split("=", 1) for word in options.set)
    policy = LeRobotPolicy(options.folder, device, overrides)
    metadata = {"policy": found.kind, "rows": found.rows, "observations": found.observations}
    with make_server(policy.infer, metadata, options.address) as server:
        where = options.address if "://" in options.address else f"port {port_of(server)}"
        print(f"{found.kind} of {options.folder} on {where}", flush=True)
        server.serve_forever()
    return 0


def _end_with_input(folder: str) -> None:
    """Whoever started this process holds the other end; its death closes it. `folder` is removed then."""
    while os.read(0, 4096):
        pass
    if folder:
        shutil.rmtree(folder, ignore_errors=True)
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
