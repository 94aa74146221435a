"""The Dynamixel servos of a leader arm on their serial bus (protocol 2.0, X series). The only user of dynamixel_sdk.

https://emanual.robotis.com/docs/en/dxl/protocol2/ and /dxl/x/xl330-m288/ (control table).
"""

from __future__ import annotations

import termios
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from e0_ros.core.gello_geometry import BAUD_RATES

BAUD_RATE, TORQUE_ENABLE, HARDWARE_ERROR, PRESENT_POSITION = 8, 64, 70, 132
_POSITION_BYTES, _ALERT = 4, 0x80
_STATUS_BYTES, _REQUEST_BYTES = 11, 14
_RETURN_DELAY_S = 500e-6
_POLL_S = 0.002
_HARDWARE = {0: "input voltage", 2: "overheating", 3: "encoder", 4: "electrical shock", 5: "overload"}


@dataclass(frozen=True)
class Sample:
    """Positions [ticks] in the order of the ids, and when the servos were asked (of the clock that was given)."""

    stamp_ns: int
    ticks: tuple[int, ...]


@dataclass(frozen=True)
class BusFault:
    """Why there is no sample; `lost`: the port is gone and must be opened again."""

    reason: str
    lost: bool = False


class BusError(RuntimeError):
    """The bus cannot be used; the message says what was found and what to do."""


def read_time_s(servos: int, baud_rate: int) -> float:
    """Shortest time to read all servos once: bytes on the wire and the servos' factory return delay (500 us)."""
    bytes_ = _REQUEST_BYTES + servos * (1 + _STATUS_BYTES + _POSITION_BYTES)
    return bytes_ * 10 / baud_rate + servos * _RETURN_DELAY_S


class LeaderBus:
    """An open port with servos that answer, their torque off.

    Args:
        port: serial device.
        baud_rate: of the servos.
        ids: servos to read, in this order.
        patience_s: wait for an answer, beyond the time on the wire; above the adapter's latency timer (16 ms unless
            it was set to 1 ms).

    Raises:
        BusError: dynamixel-sdk is missing, the port cannot be opened, a servo does not answer or refuses.

    """

    def __init__(self, port: str, baud_rate: int, ids: Sequence[int], patience_s: float = 0.03) -> None:
        try:
            import dynamixel_sdk as sdk
        except ModuleNotFoundError:
            raise BusError("dynamixel-sdk is not installed here; pip install 'e0_ros[teleop]'") from None
        self._sdk, self.ids = sdk, tuple(ids)
        self._packets: Any = sdk.Protocol2PacketHandler()
        self._port: Any = sdk.PortHandler(port)
        byte_ms, patience_ms = 1e4 / baud_rate, 1e3 * (patience_s + len(ids) * _RETURN_DELAY_S)
        self._port.setPacketTimeout = lambda n: self._port.setPacketTimeoutMillis(n * byte_ms + patience_ms)
        try:
            opened = self._port.setBaudRate(baud_rate)
        except OSError as error:
            raise BusError(f"{port} cannot be opened: {error}; is the leader plugged in, and may you use it?") from None
        if not opened:
            raise BusError(f"baud rate {baud_rate} is not one that dynamixel-sdk knows")
        self._port.ser.timeout = _POLL_S  # the SDK would poll without a pause
        try:
            self._greet(port, baud_rate)
        except BusError:
            self.close()
            raise

    def _greet(self, port: str, baud_rate: int) -> None:
        silent = [str(i) for i in self.ids if self._packets.ping(self._port, i)[1] != self._sdk.COMM_SUCCESS]
        if silent:
            all_ = "; not one does: power, cable or baud rate?" if len(silent) == len(self.ids) else ""
            raise BusError(f"{port} at {baud_rate} baud: servo {', '.join(silent)} does not answer{all_}")
        for servo in self.ids:
            result, error = self._packets.write1ByteTxRx(self._port, servo, TORQUE_ENABLE, 0)
            if result != self._sdk.COMM_SUCCESS or error & ~_ALERT:
                raise BusError(f"servo {servo} does not let its torque be switched off{self._why(result, error)}")

    def read(self, clock: Callable[[], int]) -> Sample | BusFault:
        """One position of every servo, by one sync read. `clock` gives the time in ns.

        Takes `read_time_s` and the adapter's latency; without an answer that time and the patience.
        """
        try:
            return self._read(clock)
        except (OSError, termios.error) as error:  # pyserial's errors are OSErrors, but for what it lets through
            return BusFault(f"the leader's port is gone: {error}", lost=True)

    def _read(self, clock: Callable[[], int]) -> Sample | BusFault:
        sent = self._packets.syncReadTx(
            self._port, PRESENT_POSITION, _POSITION_BYTES, list(self.ids), len(self.ids), False
        )
        stamp_ns = clock()
        if sent != self._sdk.COMM_SUCCESS:
            return BusFault(f"the request could not be sent{self._why(sent, 0)}")
        ticks, alarmed = [], []
        for servo in self.ids:
            data, result, error = self._packets.readRx(self._port, servo, _POSITION_BYTES)
            if result != self._sdk.COMM_SUCCESS or error & ~_ALERT or len(data) != _POSITION_BYTES:
                return BusFault(f"servo {servo} gave no position{self._why(result, error)}")
            ticks.append(int.from_bytes(bytes(data), "little", signed=True))
            alarmed += [servo] if error & _ALERT else []
        if alarmed:
            return BusFault(f"servo {alarmed[0]} reports a hardware error{self._hardware(alarmed[0])}; power-cycle it")
        return Sample(stamp_ns, tuple(ticks))

    def write_baud_rate(self, baud_rate: int) -> None:
        """Tell every servo another baud rate, which it keeps in its EEPROM; after this the bus is to be opened anew.

        Raises:
            BusError: a servo does not take it.

        """
        for servo in self.ids:
            result, error = self._packets.write1ByteTxRx(self._port, servo, BAUD_RATE, BAUD_RATES[baud_rate])
            if result != self._sdk.COMM_SUCCESS or error & ~_ALERT:
                raise BusError(f"servo {servo} does not take {baud_rate} baud{self._why(result, error)}; try again")

    def _hardware(self, servo: int) -> str:
        bits, result, _ = self._packets.read1ByteTxRx(self._port, servo, HARDWARE_ERROR)
        named = [name for bit, name in _HARDWARE.items() if bits >> bit & 1]
        return f": {', '.join(named)}" if result == self._sdk.COMM_SUCCESS and named else ""

    def _why(self, result: int, error: int) -> str:
        words = self._packets.getTxRxResult(result) if result else self._packets.getRxPacketError(error)
        return f" ({words.split('] ')[-1].rstrip('!.')})" if words else ""

    def close(self) -> None:
        """Close the port."""
        self._port.closePort()
