"""Attacks by WASI calls."""

from __future__ import annotations

from attacks.writing import BADF, FAULT, INVAL, MEMORY, PERM, TIMED_OUT, WHATEVER, attack, main


def wasi(
    name: str,
    status: int | None,
    call: str,
    params: str,
    args: str,
    *options: str,
    before: str = "",
    message: str = "",
    pages: int = 1,
) -> None:
    text = f"""(import "wasi_snapshot_preview1" "{call}" (func $call (param {params}) (result i32)))
    (memory (export "memory") {pages}) (data (i32.const 0) "\\00\\04\\00\\00\\ff\\ff\\ff\\ff")
    (data (i32.const 256) "../../../../etc/passwd/etc/passwdlink/../../etc")"""
    attack(name, status, text + main(f"{before} (call $exit (call $call {args}))"), *options, head="", message=message)


def numbers(*values: int, wide: tuple[int, ...] = ()) -> str:
    return " ".join(f"({'i64' if index in wide else 'i32'}.const {value})" for index, value in enumerate(values))


for fd, call in ((0, "fd_read"), (1, "fd_write")):
    four = "i32 i32 i32 i32"
    status = FAULT if call == "fd_read" else WHATEVER
    wasi(f"{call}: 2**32-1 buffers", status, call, four, numbers(fd, 0, -1, 64))
    wasi(f"{call}: 2**29 buffers, as many bytes as fit in 32 bits", status, call, four, numbers(fd, 0, 2**29, 64))
    wasi(f"{call}: buffers at the end of the address space", status, call, four, numbers(fd, -8, 1, 64))
    wasi(f"{call}: a buffer of 2**32-1 bytes", status, call, four, numbers(fd, 0, 1, 64))
    wasi(f"{call}: the result beyond the address space", status, call, four, numbers(fd, 64, 1, -3))
    wasi(f"{call}: a negative descriptor", BADF, call, four, numbers(-1, 64, 1, 32))
    wasi(
        f"{call}: eight million buffers",
        WHATEVER if fd else 0,
        call,
        four,
        numbers(fd, 512, 8_000_000, 32),
        pages=1000,
    )
    wasi(
        f"{call}: eight million buffers, each of nearly all the memory",
        WHATEVER if fd else 0,
        call,
        four,
        numbers(fd, 512, 8_000_000, 0),
        before="""(local $at i32) (loop
          (i32.store offset=516 (local.get $at) (i32.const 60000000))
          (br_if 0 (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 64000000))))""",
        pages=1000,
    )
poll = "i32 i32 i32 i32"
wasi("poll_oneoff: none", INVAL, "poll_oneoff", poll, numbers(0, 1024, 0, 64))
wasi("poll_oneoff: 2**32-1 subscriptions", FAULT, "poll_oneoff", poll, numbers(0, 1024, -1, 64))
wasi("poll_oneoff: as many bytes as fit in 32 bits", FAULT, "poll_oneoff", poll, numbers(0, 1024, 2**28, 64))
wasi("poll_oneoff: a million clocks", INVAL, "poll_oneoff", poll, numbers(64, 64, 1_300_000, 0), pages=1000)
for clock, flags, timeout, status in (
    (0, 0, -1, TIMED_OUT),
    (1, 1, -1, TIMED_OUT),
    (1, 0, 2**63 - 1, TIMED_OUT),
    (-1, 0, 0, WHATEVER),
    (-1, 1, -1, WHATEVER),
    (7, 0, 0, WHATEVER),
    (1, -1, 0, INVAL),
):
    wasi(
        f"poll_oneoff: clock {clock}, flags {flags}, timeout {timeout}",
        status,
        "poll_oneoff",
        poll,
        numbers(512, 1024, 1, 64),
        before=f"""(i32.store (i32.const 528) (i32.const {clock})) (i64.store (i32.const 536) (i64.const {timeout}))
        (i32.store16 (i32.const 552) (i32.const {flags}))""",
    )
for tag in (1, 2, 3, 255):
    for fd in (-1, 2**31 - 1, -(2**31), 99):
        wasi(
            f"poll_oneoff: tag {tag}, descriptor {fd}",
            BADF if tag <= 2 else INVAL,
            "poll_oneoff",
            poll,
            numbers(512, 1024, 1, 64),
            before=f"(i32.store8 (i32.const 520) (i32.const {tag})) (i32.store (i32.const 528) (i32.const {fd}))",
        )
for length in (-1, 2**31 - 1, -(2**31)):
    wasi(f"random_get: {length} bytes", WHATEVER, "random_get", "i32 i32", numbers(64, length))
wasi("args_get: outside of the memory", WHATEVER, "args_get", "i32 i32", numbers(-4, -4))
wasi("environ_get: outside of the memory", WHATEVER, "environ_get", "i32 i32", numbers(65536, 65536), "--env", "K=V")
wasi("fd_renumber: to 2**31-1", BADF, "fd_renumber", "i32 i32", numbers(0, 2**31 - 1))
wasi("fd_renumber: negative", BADF, "fd_renumber", "i32 i32", numbers(-1, -1))
wasi("fd_close: negative", BADF, "fd_close", "i32", numbers(-1))
wasi("sock_accept: a file", WHATEVER, "sock_accept", "i32 i32 i32", numbers(1, 0, 64))

path_open = "i32 i32 i32 i32 i32 i64 i64 i32 i32"
DIRECTORY = ("--dir", "DIRECTORY::/")
for what, start, length, status in (
    ("up and up to /etc/passwd", 256, 22, PERM),
    ("/etc/passwd", 256 + 22, 11, PERM),
    ("the parent", 256, 2, PERM),
    ("a name without end", 256, -1, WHATEVER),
    ("a name at the end of the address space", -8, 8, WHATEVER),
):
    wasi(
        f"path_open: {what}",
        status,
        "path_open",
        path_open,
        numbers(3, 0, start, length, 0, 2, 0, 0, 64, wide=(5, 6)),
        *DIRECTORY,
    )
attack(
    "path_symlink: out of the directory, and through it",
    PERM,
    f"""(import "wasi_snapshot_preview1" "path_symlink" (func $link (param i32 i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open" (func $open (param {path_open}) (result i32)))
    {MEMORY} (data (i32.const 0) "../../../../../../../../../../etcX/passwd")"""
    + main(f"""(drop (call $link {numbers(0, 33, 3, 33, 1)}))
      (call $exit (call $open {numbers(3, 1, 33, 8, 0, 2, 0, 0, 64, wide=(5, 6))}))"""),
    *DIRECTORY,
    head="",
)
for call in ("path_rename", "path_link"):
    extra = "i32 " if call == "path_link" else ""
    wasi(
        f"{call}: from outside of the directory",
        PERM,
        call,
        f"i32 {extra}i32 i32 i32 i32 i32",
        numbers(3, *((0,) if extra else ()), 256, 22, 3, 278 + 11, 4),
        *DIRECTORY,
    )
