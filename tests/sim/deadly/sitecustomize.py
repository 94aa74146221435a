"""Put on PYTHONPATH of processes by a test: the rollout of seed 1 crashes, that of seed 2 never ends."""

import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time


class _Deadly(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname != "sim.evaluation":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            run = module.RolloutRunner.run

            def deadly(runner, job, onlooker=None):
                if job.seed == 1:
                    os.kill(os.getpid(), signal.SIGSEGV)
                while job.seed == 2:
                    time.sleep(1)
                return run(runner, job, onlooker)

            module.RolloutRunner.run = deadly

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Deadly())
