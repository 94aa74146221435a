"""Put on PYTHONPATH of a node by a test: every fourth message or so is sent up to 50 ms late."""

import importlib.abc
import importlib.machinery
import random
import sys
import time


class _Delays(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path, target=None):
        if fullname != "rclpy.publisher":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(fullname, path)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            publish = module.Publisher.publish
            generator = random.Random()

            def late(publisher, message):
                if generator.random() < 0.25:
                    time.sleep(generator.uniform(0.0, 0.05))
                publish(publisher, message)

            module.Publisher.publish = late

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Delays())
