"""Bookkeeping of one simulated episode: steps, success, done."""

from __future__ import annotations

from dataclasses import dataclass

from sim.adapter import Scene


@dataclass
class Episode:
    """From a reset to done. Steps count only between START and the end."""

    scene: Scene
    reset_id: int = 0
    max_steps: int = 0
    running: bool = False
    step: int = 0
    success: bool = False
    success_once: bool = False
    done: bool = False

    def start(self) -> None:
        """START arrived: from now on steps count. Ignored before the first reset and after done."""
        self.running = self.reset_id > 0 and not self.done

    def stop(self) -> None:
        """END arrived."""
        self.running = False

    def observe(self, success: bool) -> None:
        """Take in the success at the present step."""
        self.success = success
        if self.running:
            self.success_once |= success
            self.done |= self.success_once or 0 < self.max_steps <= self.step

    def abort(self) -> None:
        """Over without success: somebody did not answer."""
        self.done, self.running = True, False
