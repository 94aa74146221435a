"""Dynamixel X servos as their bus shows them: protocol 2.0 (https://emanual.robotis.com/docs/en/dxl/protocol2/).

Bytes in, bytes out: `servos.answer(data)`. Knows ping, read, write, sync read, CRC and byte stuffing, and answers what
is wrong with a status error as a servo does. Only what a leader arm needs of the control table is there.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

HEADER = b"\xff\xff\xfd\x00"
BROADCAST = 254
PING, READ, WRITE, STATUS, SYNC_READ = 0x01, 0x02, 0x03, 0x55, 0x82
INSTRUCTION_ERROR, CRC_ERROR, RANGE_ERROR, LENGTH_ERROR, ACCESS_ERROR, ALERT = 2, 3, 4, 5, 7, 0x80
MODEL_XL330_M288, FIRMWARE = 1200, 52
BAUD_RATE, TORQUE_ENABLE, HARDWARE_ERROR, PRESENT_POSITION = 8, 64, 70, 132
BAUD_RATES = (9600, 57600, 115200, 1000000, 2000000, 3000000, 4000000)
TABLE_BYTES = 147
_MAX_LENGTH = 1024


def crc16(data: bytes) -> int:
    """CRC of a packet: polynomial 0x8005, most significant bit first, from 0."""
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x8005) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc


def packet(servo: int, instruction: int, parameters: bytes) -> bytes:
    """A whole packet, with stuffing and CRC."""
    body = (bytes((instruction,)) + parameters).replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
    head = HEADER + struct.pack("<BH", servo, len(body) + 2) + body
    return head + struct.pack("<H", crc16(head))


def take_packet(buffer: bytearray) -> tuple[int, int, bytes, bool] | None:
    """Remove the first packet of a buffer: id, instruction, parameters, whether the CRC is right. None: not whole."""
    while (start := buffer.find(HEADER)) >= 0:
        del buffer[:start]
        if len(buffer) < 7:
            return None
        servo, length = struct.unpack_from("<BH", buffer, 4)
        if not 3 <= length <= _MAX_LENGTH:
            del buffer[:4]
            continue
        if len(buffer) < 7 + length:
            return None
        whole = bytes(buffer[: 7 + length])
        del buffer[: 7 + length]
        body = whole[7:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
        return servo, body[0], body[1:], crc16(whole[:-2]) == struct.unpack("<H", whole[-2:])[0]
    del buffer[:-3]
    return None


class Servos:
    """All servos of a bus.

    Args:
        ids: their ids.
        positions: gives the present position of each [ticks], in the order of the ids.
        baud_rate: in every servo's EEPROM.

    """

    def __init__(self, ids: Sequence[int], positions: Callable[[], Sequence[int]], baud_rate: int = 57600) -> None:
        self._ids, self._positions = tuple(ids), positions
        self._tables = {i: bytearray(TABLE_BYTES) for i in ids}
        for servo, table in self._tables.items():
            struct.pack_into("<HIBB", table, 0, MODEL_XL330_M288, 0, FIRMWARE, servo)
            table[TORQUE_ENABLE], table[BAUD_RATE] = 1, BAUD_RATES.index(baud_rate)
        self.silent: set[int] = set()
        self._buffer, self._line_baud = bytearray(), 0

    def baud_rate(self, servo: int) -> int:
        """What a servo listens at."""
        return BAUD_RATES[self._tables[servo][BAUD_RATE]]

    def torque(self, servo: int) -> bool:
        """Whether a servo holds its position, which hands then cannot move."""
        return bool(self._tables[servo][TORQUE_ENABLE])

    def alarm(self, servo: int, bits: int) -> None:
        """Set a servo's hardware error; 0 clears it."""
        self._tables[servo][HARDWARE_ERROR] = bits

    def answer(self, data: bytes, baud_rate: int = 0) -> bytes:
        """What the servos say to these bytes, which may be part of a packet or several.

        Those of another baud rate than the line's hear nothing in them; 0: all of them hear it.
        """
        self._buffer += data
        self._line_baud = baud_rate
        said = b""
        while (request := take_packet(self._buffer)) is not None:
            said += self._reply(*request)
        return said

    def _reply(self, servo: int, instruction: int, parameters: bytes, sound: bool) -> bytes:
        asked = [i for i in self._ids if servo in (i, BROADCAST) and self._hears(i)]
        if not sound:
            return b"".join(self._status(i, CRC_ERROR) for i in asked if servo != BROADCAST)
        if instruction == SYNC_READ and servo == BROADCAST and len(parameters) >= 4:
            wanted = [i for i in parameters[4:] if i in self._ids and self._hears(i)]
            return b"".join(self._read(i, parameters[:4]) for i in wanted)
        if instruction == PING:
            known = struct.pack("<HB", MODEL_XL330_M288, FIRMWARE)
            return b"".join(self._status(i, 0, known) for i in asked)
        if servo == BROADCAST:
            return b""
        act = {READ: self._read, WRITE: self._write}.get(instruction)
        return b"".join(act(i, parameters) if act else self._status(i, INSTRUCTION_ERROR) for i in asked)

    def _hears(self, servo: int) -> bool:
        return servo not in self.silent and self._line_baud in (0, self.baud_rate(servo))

    def _read(self, servo: int, parameters: bytes) -> bytes:
        if len(parameters) != 4:
            return self._status(servo, LENGTH_ERROR)
        address, length = struct.unpack("<HH", parameters)
        if address + length > TABLE_BYTES:
            return self._status(servo, RANGE_ERROR)
        table, position = self._tables[servo], self._positions()[self._ids.index(servo)]
        struct.pack_into("<i", table, PRESENT_POSITION, position)
        return self._status(servo, 0, bytes(table[address : address + length]))

    def _write(self, servo: int, parameters: bytes) -> bytes:
        if len(parameters) < 3:
            return self._status(servo, LENGTH_ERROR)
        (address,), data = struct.unpack_from("<H", parameters), parameters[2:]
        most = {TORQUE_ENABLE: 1, BAUD_RATE: len(BAUD_RATES) - 1}.get(address)
        if most is None or len(data) != 1 or (address == BAUD_RATE and self.torque(servo)):  # EEPROM: torque off
            return self._status(servo, ACCESS_ERROR if address < TABLE_BYTES else RANGE_ERROR)
        if data[0] > most:
            return self._status(servo, RANGE_ERROR)
        self._tables[servo][address] = data[0]
        return self._status(servo, 0)

    def _status(self, servo: int, error: int, data: bytes = b"") -> bytes:
        alert = ALERT if self._tables[servo][HARDWARE_ERROR] else 0
        return packet(servo, STATUS, bytes((error | alert,)) + data)
