"""Checks whether a PNG file is whole."""

import struct
import zlib

import tensorflow as tf

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Length, type and checksum of the last chunk, which all files have in common.
_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
# Number of bytes that `problem_at_ends` needs from the beginning and from the end.
HEAD, TAIL = 26, len(_END)
# Far more than an image of Taskonomy has. Decoded, some kilobytes could take all memory.
_MOST_PIXELS = 2**26


def problem_at_ends(head: bytes, tail: bytes, bits: int) -> str:
    """What is wrong with a file's first `HEAD` and last `TAIL` bytes; "" if nothing is.

    This finds files that are empty, cut off, far too large or no PNG files, without reading the
    rest of them.

    Args:
        head: The first bytes.
        tail: The last bytes.
        bits: Number of bits that each channel should have.
    """
    if not head:
        return "it is empty"
    if head[:8] != _SIGNATURE or len(head) < HEAD or head[12:16] != b"IHDR":
        return "it is no PNG file"
    if head[24] != bits:
        return f"it has {head[24]} bits per channel instead of {bits}"
    width, height = struct.unpack(">II", head[16:24])
    if not 0 < width * height <= _MOST_PIXELS:
        return f"it claims to have {width} x {height} pixels"
    return "" if tail == _END else "it is cut off"


def problem(data: bytes, bits: int, decode: bool = True) -> str:
    """What is wrong with a whole file; "" if nothing is.

    Without `decode`, only checksums tell, which takes a tenth of the time.

    Args:
        data: The file.
        bits: Number of bits that each channel should have.
        decode: Whether to decode it.
    """
    found = problem_at_ends(data[:HEAD], data[-TAIL:], bits)
    position = len(_SIGNATURE)
    while not found and position < len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8].ljust(8, b"\x00"))
        end = position + 8 + length
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            found = f"the checksum of its {kind.decode('ascii', 'replace')} chunk is wrong"
        position = end + 4
    if decode and not found:
        try:
            tf.io.decode_png(data, dtype=tf.uint8 if bits == 8 else tf.uint16)
        except tf.errors.InvalidArgumentError:
            found = "it cannot be decoded"
    return found
