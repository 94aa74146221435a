"""A recording in progress: what callbacks hand over is encoded and written by threads of its own, in order."""

from __future__ import annotations

import json
import queue
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from e0_ros.core.bag_writer import BagError, BagSummary, BagWriter, free_bytes
from e0_ros.core.definitions import DefinitionError, Definitions
from e0_ros.core.image_codec import EncodingError, changes, transform
from e0_ros.core.recorder_config import BagConfig, StoreConfig
from e0_ros.interfaces import Qos

FLUSH_NS = 500_000_000


@dataclass(frozen=True)
class Received:
    """A serialised message as it came, with its topic's QoS and the times of receipt and of publishing."""

    topic: str
    type: str
    qos: Qos
    data: bytes
    log_ns: int
    publish_ns: int
    sequence: int = 0


Stored = tuple[str, str, bytes]
_Work = tuple[Received, "Future[Stored] | None"]


class Recording:
    """Writes one bag from `put` messages until `close`. `put` never blocks and never raises.

    `unencoded` counts, by topic, messages that could not be encoded and are stored as they came; `complaints` says why,
    once per topic, for whoever logs it.

    Raises:
        BagError: the bag cannot be made, or the file system has less than `min_free_bytes` left.

    """

    def __init__(
        self, root: Path, episode_id: str, bag: BagConfig, store: StoreConfig, definitions: Definitions
    ) -> None:
        _check_space(root, bag.min_free_bytes)
        self.fault = ""
        self.messages = self.size_bytes = 0
        self.unencoded: Counter[str] = Counter()
        self.complaints: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._root, self._min_free = root, bag.min_free_bytes
        self._writer = BagWriter(root, episode_id, bag, definitions)
        self._store = store
        self._transform = transform(store.images, store.jpeg_quality, store.observation_images, definitions)
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._lock = threading.Lock()
        self._flushed_ns = 0
        self._summary: BagSummary | None = None
        self._custom: dict[str, str] = {}
        self._discard = False
        self._encoders = ThreadPoolExecutor(store.encoders, "encode")
        self._thread = threading.Thread(target=self._run, name="bag", daemon=True)

    @property
    def path(self) -> Path:
        """Folder of the bag as it grows."""
        return self._writer.path

    def start(self, custom: Mapping[str, str], attachments: Mapping[str, str], now_ns: int) -> None:
        """Write what describes the episode, then begin to write messages.

        Raises:
            BagError: the file system refuses.

        """
        self._custom = dict(custom)
        try:
            self._writer.metadata(custom)
            for name, text in attachments.items():
                self._writer.attach(name, text, now_ns)
        except OSError as error:
            self._writer.abandon()
            raise BagError(f"{self.path}: cannot be written ({error.strerror})") from None
        self._thread.start()

    def put(self, message: Received) -> bool:
        """Hand over a message; False if it is dropped, because too much waits or recording has stopped."""
        size = len(message.data)
        with self._lock:
            if self.fault or self._waiting_bytes + size > self._store.queue_bytes:
                return False
            self._waiting_bytes += size
        future = None
        if changes(message.type, self._store.images, self._store.observation_images):
            future = self._encoders.submit(self._transform, message.topic, message.type, message.data)
        self._work.put((message, future))
        return True

    def close(self, custom: Mapping[str, str], *, discard: bool = False) -> BagSummary | None:
        """Write all that waits and close the bag; None if a fault left it partial."""
        self._custom.update(custom)
        self._discard = discard
        self._work.put(None)
        self._thread.join()
        self._encoders.shutdown()
        return self._summary

    def _run(self) -> None:
        try:
            while (work := self._next()) is not None:
                self._write(*work)
            self._summary = self._writer.close(self._closing(), discard=self._discard)
        except _NoSpace as error:
            self._stop(str(error), finish=True)
        except (OSError, DefinitionError, BagError) as error:
            self._stop(f"recording of {self.path} failed: {error}", finish=isinstance(error, DefinitionError))
        except Exception as error:  # a thread that ends in silence would lose the rest of the episode
            self._stop(f"recording of {self.path} failed: {type(error).__name__}: {error}", finish=True)

    def _next(self) -> _Work | None:
        while True:
            try:
                return self._work.get(timeout=FLUSH_NS / 1e9)
            except queue.Empty:
                self._flush()

    def _write(self, message: Received, future: Future[Stored] | None) -> None:
        topic, type_name, data = self._encoded(message, future)
        self._writer.write(topic, type_name, message.qos, data, message.log_ns, message.publish_ns, message.sequence)
        with self._lock:
            self._waiting_bytes -= len(message.data)
        self.messages, self.size_bytes = self._writer.messages, self._writer.size_bytes
        if abs(message.log_ns - self._flushed_ns) >= FLUSH_NS:
            self._flushed_ns = message.log_ns
            self._flush()

    def _encoded(self, message: Received, future: Future[Stored] | None) -> Stored:
        if future is not None:
            try:
                return future.result()
            except EncodingError as error:
                if message.topic not in self.unencoded:
                    self.complaints.put(f"{error}; stored as it came")
                self.unencoded[message.topic] += 1
        return message.topic, message.type, message.data

    def _flush(self) -> None:
        self._writer.flush()
        free = free_bytes(self._root)
        if free < self._min_free:
            raise _NoSpace(
                f"{free / 2**20:.0f} MiB are free at {self._root}, min_free_bytes is {self._min_free / 2**20:.0f} MiB: "
                "recording stopped; make room"
            )

    def _closing(self) -> dict[str, str]:
        return {**self._custom, "unencoded_by_topic": json.dumps(dict(self.unencoded))}

    def _stop(self, reason: str, *, finish: bool) -> None:
        with self._lock:
            self.fault = reason
        if finish:
            try:
                self._summary = self._writer.close({**self._closing(), "outcome": "unlabelled", "fault": reason})
            except BagError:
                return
        self._writer.abandon()


class _NoSpace(Exception):
    pass


def _check_space(root: Path, min_free: int) -> None:
    try:
        free = free_bytes(root)
    except OSError as error:
        raise BagError(f"{root}: cannot be used ({error.strerror}); choose another bag_dir") from None
    if free < min_free:
        raise BagError(
            f"{free / 2**20:.0f} MiB are free at {root}, min_free_bytes is {min_free / 2**20:.0f} MiB: make room"
        )
