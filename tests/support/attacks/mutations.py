"""Damages WebAssembly modules at random: some mutants are refused at once, others run and do anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

HEADER = b"\0asm\1\0\0\0"
CUSTOM, CODE = 0, 10  # sections
CALL, I32_CONST, I64_CONST = 0x10, 0x41, 0x42  # instructions
CONSTANTS = [b"\0", b"\1", b"\2", b"\x7f", b"\xff\0", b"\x80\x80\4", b"\xff\xff\xff\xff\7", b"\x80\x80\x80\x80\x78"]
NUMBERS = [0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**64 - 1]

Section = tuple[int, bytes]


def mutate(module: bytes, others: Sequence[bytes], random: Random) -> bytes:
    """A mutant of the module, which may get sections of the others."""
    sections = parse(module)
    for _ in range(random.choice([1, 1, 1, 2, 2, 4])):
        if random.randrange(8):
            change_section(sections, random)
        else:
            rearrange(sections, parse(random.choice(others)), random)
    mutant = bytearray(HEADER + b"".join(bytes([kind]) + sized(payload) for kind, payload in sections))
    if not random.randrange(20):
        del mutant[random.randrange(len(mutant)) :]
    if not random.randrange(20):
        place = random.randrange(len(mutant) or 1)
        mutant[place : place + 1] = random.randbytes(1)
    return bytes(mutant)


# Modules and their parts.


def parse(module: bytes) -> list[Section]:
    """The sections of a valid module, but for custom ones other than names: what runs is not in them."""
    sections, position = [], len(HEADER)
    while position < len(module):
        kind = module[position]
        payload, position = read_sized(module, position + 1)
        if kind != CUSTOM or payload.startswith(b"\4name"):
            sections.append((kind, payload))
    return sections


def functions(payload: bytes) -> list[bytes]:
    """The bodies of a valid code section."""
    count, position = read_number(payload, 0)
    bodies = []
    for _ in range(count):
        body, position = read_sized(payload, position)
        bodies.append(body)
    return bodies


def read_number(code: bytes, position: int) -> tuple[int, int]:
    """An unsigned LEB128 number, and where it ends."""
    value = shift = 0
    while True:
        byte = code[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def write_number(value: int, padding: int = 0) -> bytes:
    """An unsigned LEB128 number, in so many more bytes than it needs."""
    code = bytearray()
    while value >= 0x80:
        code.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*code, value | 0x80, *[0x80] * (padding - 1), 0] if padding else [*code, value])


def read_sized(code: bytes, position: int) -> tuple[bytes, int]:
    """Bytes that follow their number, and where they end."""
    length, start = read_number(code, position)
    return code[start : start + length], start + length


def sized(payload: bytes) -> bytes:
    return write_number(len(payload)) + payload


# The mutations.


def change_section(sections: list[Section], random: Random) -> None:
    """Change bytes of a section or, mostly, of one function. Sizes stay right."""
    codes = [section for section in sections if section[0] == CODE]
    if not sections:
        return
    section = random.choice(codes if codes and random.randrange(6) else sections)
    kind, payload = section
    try:
        bodies = functions(payload) if kind == CODE else []
    except IndexError:  # it has been changed already
        bodies = []
    if bodies:
        index = random.randrange(len(bodies))
        bodies[index] = change(bodies[index], random)
        changed = write_number(len(bodies)) + b"".join(map(sized, bodies))
    else:
        changed = change(payload, random)
    sections[sections.index(section)] = kind, changed


def change(code: bytes, random: Random) -> bytes:
    """Change some byte, or number, or a few bytes."""
    place = random.randrange(len(code) or 1)
    before, byte, after = code[:place], code[place : place + 1], code[place + 1 :]
    match random.choice(["operand"] * 14 + ["flip", "flip", "overwrite", "insert", "delete", "copy", "enlarge"]):
        case "operand":
            return change_operand(code, random)
        case "flip":
            return before + bytes(one ^ 1 << random.randrange(8) for one in byte) + after
        case "overwrite":
            return before + random.choice([b"\0", b"\1", b"\x0b", b"\x40", b"\x7f", b"\x80", b"\xff"]) + after
        case "insert":
            return before + random.randbytes(random.choice([1, 2, 8])) + byte + after
        case "delete":
            return before + after[random.choice([0, 0, 1, 7]) :]
        case "copy":
            length = random.randrange(1, 16)
            source = random.randrange(len(code) or 1)
            return before + code[source : source + length] + code[place + length :]
        case _:
            value = (byte or b"\0")[0] & 0x7F
            larger = write_number(random.choice(NUMBERS)), write_number(value, 1), write_number(value, 4)
            return before + random.choice(larger) + after


def change_operand(code: bytes, random: Random) -> bytes:
    """Change a constant, or which function is called. Mostly the code is valid still."""
    places = [place for place, byte in enumerate(code[:-1]) if byte in (CALL, I32_CONST, I64_CONST)]
    if not places:
        return code
    place = random.choice(places)
    end = place + 1
    while end < len(code) and code[end] >= 0x80:
        end += 1
    operand = write_number(random.randrange(20)) if code[place] == CALL else random.choice(CONSTANTS)
    return code[: place + 1] + operand + code[end + 1 :]


def rearrange(sections: list[Section], others: list[Section], random: Random) -> None:
    """Swap, repeat or remove sections, or take one of another module: its imports, say, or its exports."""
    if not sections:
        return
    one, other = random.randrange(len(sections)), random.randrange(len(sections))
    match random.choice(["swap", "repeat", "remove", "take", "take"]):
        case "swap":
            sections[one], sections[other] = sections[other], sections[one]
        case "repeat":
            sections.insert(other, sections[one])
        case "remove":
            del sections[one]
        case "take":
            alike = [section for section in others if section[0] == sections[one][0]]
            sections[one : one + 1] = alike[:1] or [sections[one]]
