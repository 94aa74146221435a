"""Fast inference for one observation, with the same answer as the eager reference `E0Model.sample`.

The observation is encoded once into static key and value buffers; N steps overwrite the tail of the same buffers. The
last prefix layer stops at its keys and values, missing views and text padding are dropped, and noise is projected
before the observation arrives (`prepare`). On a GPU the whole way from image to tokens is one CUDA graph per set of
views, instruction length and whether rows are committed; on a CPU the same code runs directly.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from e0_policy import diffusion
from e0_policy.batch import Batch
from e0_policy.diffusion import NoiseDraw, Sample, SamplerSettings
from e0_policy.fast_path import Buffers, FastPath, Inputs, Shape
from e0_policy.heads import REGRESSION
from e0_policy.model import E0Model
from e0_policy.model_config import E0Config

SHAPES_KEPT = 8
"""Shapes whose buffers and graphs are kept, the latest used; an instruction has two, for committed rows too."""

ALIGNMENT = 64
"""Bytes between the beginnings of what travels in one block."""

Capture = Callable[[Callable[[], Any]], "tuple[Callable[[], None], Any]"]
"""Takes a run on static inputs; returns how to repeat it, and where the repetition leaves its answer."""


class EngineError(ValueError):
    """The fast path cannot run this; the message says what to use instead."""


class _Static:
    """Inputs in memory of their own; what comes from the host travels in one block and one copy."""

    def __init__(self, inputs: Inputs, device: torch.device) -> None:
        given = {name: t for name, t in vars(inputs).items() if t is not None}
        here = {name: t for name, t in given.items() if t.device.type == "cpu" and device.type != "cpu"}
        size = sum(_padded(t) for t in here.values())
        self._host = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._there = torch.empty(size, dtype=torch.uint8, device=device)
        self._sent = torch.cuda.Event() if device.type == "cuda" else None
        self._written = _views(self._host, here)
        own = {name: torch.empty_like(t, device=device) for name, t in given.items() if name not in here}
        self.inputs = replace(inputs, **own, **_views(self._there, here))
        self.load(inputs)

    def load(self, inputs: Inputs) -> None:
        """Copy the inputs of a call, of the same shapes."""
        if self._sent is not None:
            self._sent.synchronize()  # the block may still be on its way for the call before
        given = {name: t for name, t in vars(inputs).items() if t is not None}
        there = {name: t for name, t in given.items() if name not in self._written or t.device.type != "cpu"}
        for name in given.keys() - there.keys():
            self._written[name].copy_(given[name])
        self._there.copy_(self._host, non_blocking=True)
        if self._sent is not None:
            self._sent.record()
        for name, t in there.items():
            getattr(self.inputs, name).copy_(t, non_blocking=True)


def _padded(t: Tensor) -> int:
    return -(-t.nbytes // ALIGNMENT) * ALIGNMENT


def _views(block: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of these shapes, one behind the other in a block of bytes."""
    parts = block.split([_padded(t) for t in like.values()])
    pairs = zip(like.items(), parts, strict=True)
    return {name: part[: t.nbytes].view(t.dtype).view(t.shape) for (name, t), part in pairs}


@dataclass(frozen=True)
class _Captured:
    static: _Static
    replay: Callable[[], None]
    out: Sample


@dataclass
class _Slot:
    """Buffers of a shape and, once it has run, the graph that uses them."""

    buffers: Buffers
    captured: _Captured | None = None


class Engine:
    """A model made ready for one set of sampler settings.

    Not thread-safe. Weights are read at construction: make a new engine after changing them.

    Args:
        model: the model, on its device and in its dtype, in evaluation mode.
        settings: the sampler; N, alpha, noise policy and sample count are baked in.
        capture: how to record a run; by default a CUDA graph on a GPU and nothing on a CPU.
        kernels: run the expert in kernels of our own (`gpu_path.py`). Tested against torch's operations in Triton's
            interpreter, not yet timed on a GPU, and therefore not the default.

    Raises:
        EngineError: kernels where they do not run; a regression head, or a hybrid whose time enters by `concat_mlp`,
            which no published weights are; use `E0Model.sample`.

    """

    def __init__(
        self, model: E0Model, settings: SamplerSettings, capture: Capture | None = None, *, kernels: bool = False
    ) -> None:
        if not supports(model.config):
            lacks = "a regression head, and hybrid_continuous with concat_mlp"
            raise EngineError(f"the fast path has not {lacks}; use the eager E0Model.sample")
        self.model, self.settings = model, settings
        self.device = model.action_in.weight.device
        self._capture = capture_cuda if capture is None and self.device.type == "cuda" else capture
        with torch.inference_mode():
            self._path = _kernel_path(model, settings) if kernels else FastPath(model, settings)
        self._noise: tuple[Tensor, Tensor | None, Tensor | None] | None = None
        self._slots: OrderedDict[Shape, _Slot] = OrderedDict()

    @torch.inference_mode()
    def prepare(self, noise: NoiseDraw) -> None:
        """Project the noise of the next call, off its critical path."""
        self._noise = self._path.entry.project(noise.eps.to(self.device)), noise.gumbel, noise.flow

    @torch.inference_mode()
    def sample(self, batch: Batch, noise: NoiseDraw | None = None) -> Sample:
        """Denoise a chunk for one observation.

        Args:
            batch: one observation (`B` = 1), read as `E0Model.sample` does. Best on the CPU with `images` still uint8:
                what is there is decided without waiting for the GPU, and bytes travel instead of floats.
            noise: for `settings.samples` chunks; None if `prepare` was called.

        Raises:
            EngineError: more than one observation, or no noise.

        """
        if batch.size != 1:
            raise EngineError(f"the batch has {batch.size} observations; the fast path takes 1")
        if noise is not None:
            self.prepare(noise)
        shape = self._shape(batch)
        inputs = self._inputs(batch, shape)
        self._noise = None
        if self._capture is None:
            return self._path.run(shape, self._slot(shape).buffers, self._moved(inputs))
        captured = self._recorded(shape, inputs)
        captured.static.load(inputs)
        captured.replay()
        out = captured.out
        rest = (t if t is None else t.clone() for t in (out.flow, out.mean))
        return Sample(out.tokens.clone(), out.entropy.clone(), *rest)

    @torch.inference_mode()
    def record(self, batch: Batch) -> None:
        """Capture what observations like this one will need, without and with committed rows, where calls are captured.

        It takes as long as several calls, so it is for when nothing waits; noise must have been prepared.

        Raises:
            EngineError: no noise.

        """
        for committed in (0, 1) if self._capture is not None and self.model.config.committed_max else ():
            like = replace(batch, committed=torch.full_like(batch.committed, committed))
            shape = self._shape(like)
            if self._slot(shape).captured is None:
                self._recorded(shape, self._inputs(like, shape))

    @torch.inference_mode()
    def stages(self, batch: Batch, noise: NoiseDraw) -> dict[str, Callable[[], object]]:
        """The parts of one call, to be timed apart: embedding the observation, the prefix, all steps.

        Each is captured by itself where calls are captured.
        """
        self.prepare(noise)
        shape = self._shape(batch)
        path, buffers, inputs = self._path, self._slot(shape).buffers, self._moved(self._inputs(batch, shape))
        x = path.embed(shape, inputs)
        path.fill(buffers, x)
        parts: dict[str, Callable[[], object]] = {
            "embed": lambda: path.embed(shape, inputs),
            "prefix": lambda: path.fill(buffers, x),
            "steps": lambda: path.denoise(shape, buffers, inputs),
        }
        if self._capture is None:
            return parts
        return {name: _repeated(part, self._capture(part)[0]) for name, part in parts.items()}

    def _shape(self, batch: Batch) -> Shape:
        seen = batch.view_mask[0].tolist()
        views = [v for v in range(len(seen)) if seen[v] or not self.model.config.mask_absent_views]
        return Shape(tuple(views), int(batch.text_mask.sum()), bool(batch.committed[0] > 0))

    def _inputs(self, batch: Batch, shape: Shape) -> Inputs:
        """What a call reads, still where it is: a captured run copies it straight into its static inputs."""
        if self._noise is None:
            raise EngineError("no noise for this call; give it or call prepare() before")
        noise, gumbel, flow = self._noise
        dtype, views = self.model.action_in.weight.dtype, list(shape.views)
        text = batch.text_tokens[batch.text_mask][None]
        clean = diffusion.clean_rows(batch.committed, self.model.config.prediction_horizon)
        images = batch.images[0, views]
        images = images if images.dtype == torch.uint8 else images.to(dtype)
        offsets, proprio = batch.view_offset[0, views].to(dtype), batch.proprio.to(dtype)
        plan, known = batch.action_tokens, batch.action_mask
        return Inputs(images, offsets, text, proprio, noise, gumbel, flow, plan, known, clean)

    def _moved(self, inputs: Inputs) -> Inputs:
        there = {name: t.to(self.device, non_blocking=True) for name, t in vars(inputs).items() if t is not None}
        return replace(inputs, **there)

    def _slot(self, shape: Shape) -> _Slot:
        if shape not in self._slots:
            self._slots[shape] = _Slot(self._path.buffers(shape))
            if len(self._slots) > SHAPES_KEPT:
                self._slots.popitem(last=False)
        self._slots.move_to_end(shape)
        return self._slots[shape]

    def _recorded(self, shape: Shape, inputs: Inputs) -> _Captured:
        """The captured run of a shape, captured from these inputs if there is none yet."""
        slot = self._slot(shape)
        if slot.captured is None:
            assert self._capture is not None
            static, buffers = _Static(inputs, self.device), slot.buffers
            slot.captured = _Captured(static, *self._capture(lambda: self._path.run(shape, buffers, static.inputs)))
        return slot.captured


def _kernel_path(model: E0Model, settings: SamplerSettings) -> FastPath:
    """The fast path in kernels of its own.

    Raises:
        EngineError: no GPU, no Triton, or a model that they are not made for.

    """
    if not (model.action_in.weight.is_cuda and find_spec("triton")):
        raise EngineError("kernels need a CUDA GPU and triton, which torch's CUDA wheels bring; use the fast path")
    from e0_policy import gpu_path

    if not gpu_path.applies(model):
        raise EngineError(
            "kernels need bfloat16, adaRMS, one key head and widths in multiples of 128; use the fast path"
        )
    return gpu_path.GpuPath(model, settings)


def _repeated(run: Callable[[], object], replay: Callable[[], None]) -> Callable[[], object]:
    """A replay that keeps what its run reads."""

    def repeat() -> object:
        replay()
        return run

    return repeat


def supports(config: E0Config) -> bool:
    """Whether the fast path has what a configuration asks for."""
    return config.head not in REGRESSION and not (config.hybrid_continuous and config.time_cond == "concat_mlp")


def capture_cuda(run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
    """Record a run as a CUDA graph, after two runs that let libraries allocate and choose their kernels.

    Other threads may go on using the GPU meanwhile.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        out = run()
    return graph.replay, out
