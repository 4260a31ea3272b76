"""Checks that a checkpoint file is whole, before anything is built from it.

torch writes zip archives of uncompressed records, each with its CRC-32, which torch
itself does not check when it reads them. Files in the older format (torch < 1.6, or
``_use_new_zipfile_serialization=False``) have no checksum, so only their length can be
checked.
"""

import io
import os
import struct
import zipfile
from bisect import bisect_left
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

from .errors import Damage, Refusal
from .program import Names, Program, follow

_LOCAL_HEADER = 30
_CHUNK = 1 << 20
_FOLDER = 0x10  # MS-DOS's attribute of folders


class Layout(NamedTuple):
    """The pickle of a checkpoint, and the positions of its names in the file."""

    program: Program
    positions: list[int]


def check(file: BinaryIO, names: Names) -> Layout:
    """Check that a file is whole and that its pickle does nothing that is not allowed.

    Raises:
        Damage: the file is not a checkpoint, or not as it was written.
        Refusal: it contains something that is not allowed.
    """
    file.seek(0)
    is_zip = file.read(4) == b'PK\x03\x04'
    file.seek(0)
    try:
        return _check_zip(file, names) if is_zip else _check_legacy(file, names)
    except (zipfile.BadZipFile, NotImplementedError, UnicodeError) as error:
        raise Damage(str(error)) from error


def _check_zip(file: BinaryIO, names: Names) -> Layout:
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        folder = entries[0].filename.partition('/')[0] if entries else ''
        # torch ignores case when it looks up a record.
        if len({entry.filename.casefold() for entry in entries}) < len(entries):
            raise Refusal('two records with the same name')
        if compressed := [entry for entry in entries if entry.compress_type]:
            raise Refusal(
                f'the compressed record {compressed[0].filename}, which may expand '
                'a thousandfold'
            )
        # torch reads nothing from a folder, and leaves the memory uninitialised.
        if any(entry.is_dir() or entry.external_attr & _FOLDER for entry in entries):
            raise Damage('a record is marked as a folder')
        if sum(entry.file_size for entry in entries) > size:
            raise Damage('its records are longer than the file')
        records = {entry.filename.partition('/')[2]: entry for entry in entries}
        if 'constants.pkl' in records:
            raise Refusal('a TorchScript program')
        if 'data.pkl' not in records:
            raise Damage(f'a zip archive without {folder}/data.pkl')
        # All are zero after torch.serialization.set_crc32_options(False).
        if any(entry.CRC for entry in entries):
            for entry in entries:
                _check_sum(archive, entry)
    start = _data_offset(file, records['data.pkl'])
    file.seek(start)
    program = follow(io.BytesIO(file.read(records['data.pkl'].file_size)), names)
    for key, needed in program.storages.items():
        record = records.get(f'data/{key}')
        if record is None or record.file_size != needed:
            raise Damage(f'the record {folder}/data/{key} has the wrong size')
    return Layout(program, [start + position for position, _ in program.used])


def _check_sum(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    try:
        with archive.open(entry) as record:
            while record.read(_CHUNK):
                pass
    except (zipfile.BadZipFile, EOFError, RuntimeError) as error:
        raise Damage(
            f'the record {entry.filename} is not as it was written: {error}'
        ) from error


def _data_offset(file: BinaryIO, entry: zipfile.ZipInfo) -> int:
    """Return where a record's data begin, after a header with name and padding."""
    file.seek(entry.header_offset)
    name, extra = struct.unpack('<26x2H', file.read(_LOCAL_HEADER))
    return entry.header_offset + _LOCAL_HEADER + name + extra


def _check_legacy(file: BinaryIO, names: Names) -> Layout:
    """Check a file of three version pickles, the data, the keys and the storages."""
    nothing = Names(*[()] * 4)
    for _ in range(3):
        follow(file, nothing)
    program = follow(file, names)
    follow(file, nothing)
    # An eight-byte length precedes each storage.
    needed = file.tell() + sum(8 + size for size in program.storages.values())
    size = os.fstat(file.fileno()).st_size
    if needed != size:
        raise Damage(f'it has {size} bytes, but with its tensors it needs {needed}')
    return Layout(program, [position for position, _ in program.used])


class Renamed:
    """A file whose bytes at some positions read as another byte.

    It turns names in a checkpoint's pickle into names that no other program has
    registered with torch, without a copy of the file.
    """

    def __init__(self, file: BinaryIO, positions: Sequence[int], byte: bytes) -> None:
        self.file = file
        self.positions = sorted(positions)
        self.byte = byte
        self.seek = file.seek
        self.tell = file.tell

    def _within(self, start: int, length: int) -> list[int]:
        first = bisect_left(self.positions, start)
        last = bisect_left(self.positions, start + length)
        return [position - start for position in self.positions[first:last]]

    def _renamed(self, start: int, data: bytes) -> bytes:
        if positions := self._within(start, len(data)):
            changed = bytearray(data)
            for position in positions:
                changed[position] = self.byte[0]
            return bytes(changed)
        return data

    def read(self, size: int = -1) -> bytes:
        return self._renamed(self.file.tell(), self.file.read(size))

    def readline(self, size: int = -1) -> bytes:
        return self._renamed(self.file.tell(), self.file.readline(size))

    def readinto(self, buffer) -> int:
        start = self.file.tell()
        count = self.file.readinto(buffer)
        data = memoryview(buffer).cast('B')
        for position in self._within(start, count):
            data[position] = self.byte[0]
        return count
