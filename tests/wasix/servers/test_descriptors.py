"""No code relies silently on a file descriptor that other code may close, as daemons do."""

from __future__ import annotations

import pytest
from processes import check_host, need

DATA = """
import tempfile
DATA = b'''(module (import "app" "say" (func $say (param i32))) (import "app" "close" (func $close))
 (memory (export "memory") 1) (data (i32.const 0) "AAAA")
 (func (export "_start") (call $say (i32.load (i32.const 0))) (call $close) (call $say (i32.load (i32.const 0)))))'''
found = []
def program(close=lambda: None):
    made = Program(DATA)
    say = lambda number: found.append(number.to_bytes(4, "little"))
    made.linker.define_func("app", "say", FuncType([ValType.i32()], []), say)
    made.linker.define_func("app", "close", NOTHING, close)
    return made
def open_others():
    path = tempfile.mkstemp()[1]
    with open(path, "wb") as file:
        file.write(b"password=hunter2" * 1000)
    return [os.open(path, os.O_RDONLY) for _ in range(20)]
def close_all():
    os.closerange(3, 1000)
"""
CLOSE = {
    "by hand": "close_all()\nothers = open_others()",
    "python-daemon": "import daemon\n"
    "daemon.DaemonContext(detach_process=False, stderr=sys.stderr, stdout=sys.stdout).open()\n"
    "others = open_others()",
}


@pytest.mark.parametrize("way", CLOSE)
def test_a_guests_memory(way: str) -> None:
    """A guest's memory has its own data, and files that other code opened stay open."""
    if way == "python-daemon":
        need("daemon")
    check_host(f"""{DATA}
one = program()
one.run()
{CLOSE[way]}
one.run()
program().run()
one.close()
del one
assert found == [b"AAAA"] * 6, found
assert all(os.pread(file, 8, 0) == b"password" for file in others)
if {way == "python-daemon"}:
    print("went right to the end", flush=True)
    os._exit(0)
""")


def test_in_the_middle_of_a_run() -> None:
    check_host(f"""{DATA}
def close():
    global others
    close_all()
    others = open_others()
program(close).run()
assert found == [b"AAAA"] * 2, found
""")


def test_the_file_of_a_trace() -> None:
    """Nothing is written into another file that has got its number; who closes the trace is told."""
    check_host("""
        import tempfile
        directory = tempfile.mkdtemp()
        trace = Trace(os.path.join(directory, "trace.json"))
        env = ContextSwitchingEnvironment(instruments=[trace])
        def main():
            os.closerange(3, 1000)
            global others
            others = [os.open(os.path.join(directory, str(number)), os.O_RDWR | os.O_CREAT) for number in range(10)]
        env.run_main_context(main)
        try:
            trace.close()
        except OSError as error:
            assert error.errno == 9, error
        else:
            raise AssertionError("nobody is told")
        trace.close()
        assert not any(os.fstat(file).st_size for file in others)
        assert all(os.write(file, b"still open") == 10 for file in others)
    """)


def test_the_file_of_a_trace_in_a_child_of_a_fork() -> None:
    """The child writes nothing into it: the parent's events would be there twice, or mixed with the child's."""
    check_host("""
        import gc, json, tempfile
        path = os.path.join(tempfile.mkdtemp(), "trace.json")
        def main():
            env.switch_context(env.create_context(lambda: env.switch_context(0)))
            in_child(finish_in_the_child)
        def finish_in_the_child():
            for _ in range(600):
                env.destroy_context(env.create_context(print))
            trace.close()
        with Trace(path) as trace:
            env = ContextSwitchingEnvironment(instruments=[trace])
            env.run_main_context(main)
        with open(path) as file:
            events = json.load(file)["traceEvents"]
        assert len(events) < 50, len(events)
        assert [event["name"] for event in events].count("created") == 1
    """)
