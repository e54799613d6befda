"""The sandbox: what a program sees, its limits, what is left of it, and tests in a second process."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinktime.bench.execution import Checks
from thinktime.core.errors import InputError
from thinktime.sandbox.calls import NAMED, LostError, Side
from thinktime.sandbox.judging import judge
from thinktime.sandbox.running import Execution, Limits, Reason, Sandbox, find_sandbox, why_not

PROBLEM = why_not()
BUBBLEWRAP = pytest.param(
    Sandbox("bubblewrap"), id="bubblewrap", marks=pytest.mark.skipif(PROBLEM is not None, reason=f"bwrap: {PROBLEM}")
)
AMPLE = Limits(seconds=60)
"""A busy machine must not change a verdict."""
KINDS = {*NAMED, "yours", "exception", "builtin", "mine", "coroutine", "subclass", "raised", "array", "unknown"}
ADD = "def f(x):\n    return x + 1\n"


@pytest.fixture(params=[BUBBLEWRAP])
def sandbox(request: pytest.FixtureRequest) -> Sandbox:
    found: Sandbox = request.param
    return found


@pytest.fixture(params=[BUBBLEWRAP, pytest.param(Sandbox("none"), id="none")])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sandbox:
    """Both kinds, with an own folder for temporary files."""
    found: Sandbox = request.param
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return found


def run(sandbox: Sandbox, program: str, limits: Limits = AMPLE, **given: Any) -> Execution:
    return asyncio.run(sandbox.run(program, limits=limits, **given))


def verdict(sandbox: Sandbox, program: str, tests: str, limits: Limits = AMPLE) -> str:
    return asyncio.run(judge(sandbox, program, tests, limits))


# What a program sees


def test_a_program_sees_no_environment_home_network_or_process(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET", "token")
    (tmp_path / "secret").write_text("token")
    hidden = [str(tmp_path), __file__, "/etc/passwd", "/proc", "/sys", "/run", "/var", "/home"]
    hidden += [str(path) for path in Path.home().iterdir() if path not in Path(sys.base_prefix).parents]
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"""
import json, os, socket
def outcome(attempt):
    try:
        return repr(attempt())
    except OSError as error:
        return type(error).__name__
print(json.dumps({{
    "environment": dict(os.environ),
    "files": sorted(os.listdir(".")),
    "seen": [name for name in {hidden!r} if os.path.exists(name)],
    "connect": outcome(lambda: socket.create_connection(("127.0.0.1", {server.getsockname()[1]}), 1)),
    "lookup": outcome(lambda: socket.getaddrinfo("localhost.example", 80)),
    "write": [outcome(lambda name=name: open(name, "w")) for name in ("/x", "/usr/x", "/dev/x")],
    "root": [outcome(lambda: os.setuid(0)), outcome(lambda: os.chroot("/usr"))],
    "host": socket.gethostname(),
    "user": os.getuid(),
}}))"""
        outcome = run(sandbox, program)
    assert (outcome.reason, outcome.exit, outcome.stderr) == ("ok", 0, b"")
    seen = json.loads(outcome.stdout)
    assert seen.pop("user") != 0
    assert seen == {
        "environment": {},
        "files": sorted({path.parts[2] for path in map(Path, (sys.prefix, sys.base_prefix)) if path.parts[1] == "tmp"}),
        "seen": [],
        "connect": "ConnectionRefusedError",
        "lookup": "gaierror",
        "write": ["OSError"] * 3,
        "root": ["PermissionError"] * 2,
        "host": "sandbox",
    }


def test_a_program_reads_its_input_and_files_and_the_packages_of_python(either: Sandbox) -> None:
    program = "import sys, numpy\nprint(sys.stdin.read(), open('a/b').read(), numpy.arange(3).sum(), WORD)\nsys.exit(3)"
    outcome = run(either, program, stdin=b"in", files={"a/b": b"file"}, names={"WORD": "word"})
    assert (outcome.reason, outcome.exit, outcome.stdout) == ("ok", 3, b"in file 3 word\n")


# Limits


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("while True: pass", "time"),
        ("import time\nwhile True: time.sleep(0.01)", "time"),
        ("import os\nos.setsid() if os.fork() == 0 else None\nwhile True: pass", "time"),
        ("waste = bytearray(1 << 31)", "memory"),
        ("while True: print('x' * 1000)", "output"),
        ("import sys\nwhile True: sys.stderr.write('x' * 1000)", "output"),
        ("import os\nos.kill(os.getpid(), 9)", "killed"),
        ("import os\nos.abort()", "killed"),
        ("import os\nfor name in range(3): os.close(name)\nprint('x')", "ok"),
        ("import os\nos.kill(os.getppid(), 9)\nos.kill(-1, 9)", "ok"),
        ("open('x', 'wb').write(bytes(1 << 25))", "ok"),
        ("import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))", "ok"),
        ("\ud800", "ok"),
        ("x = '\0'", "ok"),
        ("x = 1\n" * 40_000, "ok"),
    ],
)
def test_an_outcome_says_why_the_program_ended(sandbox: Sandbox, program: str, reason: Reason) -> None:
    limits = Limits(seconds=1 if reason == "time" else 60, files=1 << 24)
    outcome = run(sandbox, program, limits)
    assert outcome.reason == reason
    assert (outcome.exit is not None) == (reason == "ok")
    assert len(outcome.stdout) <= limits.output and len(outcome.stderr) <= limits.output


FORKS = """
import os, time
print("made", flush=True)
for n in range(500):
    try:
        if os.fork() == 0:
            os.setsid()
            time.sleep(600)
    except OSError:
        break
print(n)
"""


def test_five_hundred_forks_are_stopped_and_nothing_is_left(sandbox: Sandbox) -> None:
    """Every process of the sandbox has the other end of the channel: the end of the last one ends the channel."""
    ours, theirs = socket.socketpair()
    with ours:
        outcome = run(sandbox, FORKS, Limits(seconds=60, processes=16), channel=theirs)
        ours.setblocking(False)
        assert ours.recv(1) == b""
    assert outcome.reason == "ok"
    assert int(outcome.stdout.split()[1]) < 16


def test_nothing_is_left_of_a_cancelled_program(sandbox: Sandbox) -> None:
    ours, theirs = socket.socketpair()
    program = f"import os, socket, time\nos.fork()\nsocket.socket(fileno={theirs.fileno()}).send(b'x')\ntime.sleep(600)"

    async def cancelled() -> None:
        task = asyncio.create_task(sandbox.run(program, channel=theirs, limits=AMPLE))
        await asyncio.get_running_loop().sock_recv(ours, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with ours:
        ours.setblocking(False)
        asyncio.run(cancelled())
        while ours.recv(1):  # what the second process said
            pass


def test_all_processes_together_have_the_memory_of_one(sandbox: Sandbox) -> None:
    program = "import os, time\nfor _ in range(3): os.fork()\nwaste = b'x' * (60 << 20)\ntime.sleep(600)"
    assert run(sandbox, program, Limits(seconds=120, memory=256 << 20)).reason == "memory"


def test_a_program_makes_no_namespaces_and_no_memory_outside_of_its_limits(sandbox: Sandbox) -> None:
    """The numbers of flags are those of ``clone``: new user and mount namespaces."""
    program = """
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
def failed(function, *values):
    ctypes.set_errno(0)
    return function(*values) == -1 and errno.errorcode[ctypes.get_errno()]
def memory():
    try: return os.memfd_create("x")
    except OSError as error: return errno.errorcode[error.errno]
clone = {"x86_64": 56, "aarch64": 220}[platform.machine()]
print(memory(), failed(libc.unshare, 0x10000000), failed(libc.unshare, 0x00020000), failed(libc.ptrace, 16, 1, 0, 0),
      failed(libc.syscall, clone, 0x10000000 | 17, 0, 0, 0, 0), failed(libc.mount, b"x", b"/tmp", b"tmpfs", 0, 0))
"""
    outcome = run(sandbox, program)
    assert outcome.stdout.split() == [b"ENOSYS"] * 4 + [b"EPERM"] * 2, outcome.stderr


@pytest.mark.parametrize("begin", ["\ufeff", "import os\nos.symlink('/etc', 'link')\nos.chmod('.', 0)\n"])
def test_a_byte_order_mark_and_a_folder_without_permissions_change_no_verdict(either: Sandbox, begin: str) -> None:
    assert verdict(either, begin + ADD, "assert f(1) == 2") == "passed"
    assert verdict(either, begin + ADD, "\ufeffassert f(1) == 3") == "failed"
    outcome = run(either, begin + "print(1)")
    assert (outcome.stdout, outcome.stderr) == (b"1\n", b"")


def test_a_program_may_change_the_mode_of_tmp(sandbox: Sandbox) -> None:
    assert verdict(sandbox, f"import os\nos.symlink('/etc', 'link')\nos.chmod('/tmp', 0)\n{ADD}", "f(1)") == "passed"


@pytest.mark.parametrize("depth", [0, 1, 1100])
def test_no_file_is_left(either: Sandbox, tmp_path: Path, depth: int) -> None:
    program = f"import os\nfor _ in range({depth}):\n    os.mkdir('d')\n    os.chdir('d')\nos.chmod('.', 0)"
    outcome = run(either, program)
    assert (outcome.reason, outcome.exit, outcome.stderr) == ("ok", 0, b"")
    assert list(tmp_path.iterdir()) == []


# Without bubblewrap


def test_without_bubblewrap_programs_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"^sandbox='bubblewrap': it is not installed; install .* or give --unsafe"):
        find_sandbox()
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    fake.chmod(0o755)
    with pytest.raises(InputError, match=r"it does not work here \(bwrap: No permissions to create new namespace\)"):
        find_sandbox()
    assert run(Sandbox("bubblewrap"), "").reason == "refused"
    assert verdict(Sandbox("bubblewrap"), ADD, "assert f(1) == 2") == "refused"
    assert find_sandbox(unsafe=True) == Sandbox("none")


# Tests in a second process


USES = {
    "plain values": (
        "def f(*values, **named): return values, named",
        """
values = (1, 2.5, None, True, "\\ud800", b"x", (1,), [[]], {1, 2}, frozenset([3]), {(1, 2): [3]}, 10**5000, -1j)
assert f(*values, x=float("inf")) == (values, {"x": float("inf")})
assert [type(value) for value in f(*values)[0]] == [type(value) for value in values]
from collections import Counter, OrderedDict, deque
from datetime import date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
values = (Counter("aab"), OrderedDict(a=1), deque([1], 2), date(2020, 1, 2), datetime(2020, 1, 2, 3), timedelta(1),
          Decimal("1.10"), Fraction(1, 3))
assert f(*values)[0] == values
assert f(float("nan"))[0][0] != f(float("nan"))[0][0]
""",
    ),
    "a check of a candidate, as in HumanEval": (
        ADD,
        "METADATA = {}\ndef check(candidate):\n    assert candidate(1) == 2\n"
        "    assert abs(candidate(1.5) - 2.5) < 1e-6\ncheck(f)",
    ),
    "helpers of the program and modules that it imports": (
        "import math\ndef poly(c, x): return sum(a * x**i for i, a in enumerate(c))\ndef root(c): return -c[0] / c[1]",
        "assert math.isclose(poly([1, 2], root([1, 2])), 0, abs_tol=1e-9)",
    ),
    "a function named like a built-in one": ("def sum(a, b): return a + b", "assert sum(1, 2) == 3"),
    "objects": (
        """
class Vector:
    zero = 0
    def __init__(self, x): self.x = x
    def __add__(self, other): return Vector(self.x + other.x)
    def __eq__(self, other): return self.x == other.x
    def __lt__(self, other): return self.x < other.x
    def __hash__(self): return self.x
    def __repr__(self): return f"Vector({self.x})"
    def __len__(self): return self.x
def longest(vectors): return max(vectors, key=len)
def reverse(node):
    before = None
    while node: node.next, before, node = before, node, node.next
    return before
class Node:
    def __init__(self, value, next=None): self.value, self.next = value, next
class Open:
    entered = left = False
    def __enter__(self): self.entered = True; return self
    def __exit__(self, *error): self.left = True
class Pile(list):
    def push(self, x): self.append(x)
""",
        """
assert Vector(1) + Vector(2) == Vector(3) != Vector(4) and Vector(1) < Vector(2) and len(Vector(5)) == 5
assert repr(Vector(1)) == str(Vector(1)) == f"{Vector(1)}" == "Vector(1)" and Vector.zero == 0
assert len({Vector(1), Vector(1)}) == 1 and max([Vector(1), Vector(3)]) == Vector(3) and isinstance(Vector(1), Vector)
one = Vector(1); two = Vector(2); one.x = 7
assert longest([one, two]) is one and one.x == 7
with Open() as opened: assert opened.entered and not opened.left
assert opened.left
last = reverse(Node(1, Node(2)))
assert (last.value, last.next.value, last.next.next) == (2, 1, None)
pile = Pile([1]); pile.push(2)
assert pile == [1, 2] and pile[0] == 1 and len(pile) == 2
""",
    ),
    "objects of the tests": (
        "def total(node):\n    n = 0\n    while node: n, node = n + node.value, node.next\n    return n",
        "class Node:\n    def __init__(self, value, next=None): self.value, self.next = value, next\n"
        "assert total(Node(1, Node(2))) == 3",
    ),
    "functions as arguments, and generators both ways": (
        "def each(g, items):\n    for item in items: yield g(item)\ndef made(k): return lambda x: x * k",
        """
assert list(each(lambda x: x * 2, [1, 2])) == [2, 4] and list(each(len, iter(["a"]))) == [1]
assert next(each(int, ["3"])) == 3 and made(3)(4) == 12 and list(each(made(2), (x for x in [1]))) == [2]
""",
    ),
    "arguments that the program changes": (
        "def f(items, table, kinds): items.sort(); table['x'] = [1]; kinds.add(3)",
        "a, b, c = [2, 1], {}, {1}\nassert f(a, b, c) is None\nassert (a, b, c) == ([1, 2], {'x': [1]}, {1, 3})",
    ),
    "values of subclasses": (
        "import collections, enum\nimport numpy as np\nP = collections.namedtuple('P', 'a b')\n"
        "class Color(enum.IntEnum): RED = 1\n"
        "def f(): return P(1, [2]), Color.RED, collections.defaultdict(list, {1: [2]}), np.float64(2), np.int64(3)\n"
        "def g(x): return np.array(x) * 2.5",
        "p, red, table, x, n = f()\nassert p == (1, [2]) and p.a == 1 and isinstance(p, tuple)\n"
        "assert red == 1 and red.name == 'RED'\n"
        "assert table == {1: [2]} and x == 2.0 and n == 3 and isinstance(x, float)\n"
        "assert np.allclose(g([1, 2]), [2.5, 5]) and (g([2]) == np.array([5.0])).all()",
    ),
    "exceptions": (
        """
import json
class OddError(ValueError):
    def __init__(self, code): self.code = code; super().__init__(f"code {code}")
def odd(): raise OddError(4)
def missing(): return {}["k"]
def parsed(): json.loads("{")
def leave(): raise SystemExit(2)
""",
        """
def raised(kind, function):
    try: function()
    except kind as error: return error
    raise AssertionError(kind)
assert raised(OddError, odd).code == 4 and str(raised(ValueError, odd)) == "code 4"
assert raised(KeyError, missing).args == ("k",) and raised(SystemExit, leave).code == 2
assert "property name" in str(raised(json.JSONDecodeError, parsed))
""",
    ),
    "prints, coroutines and globals that change": (
        "count = 0\ndef f(x):\n    global count\n    count += 1\n    print('hello', x)\nasync def g(x): return x",
        """
import asyncio, contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as text: f(3); f(4)
assert text.getvalue() == "hello 3\\nhello 4\\n" and count == 2 and asyncio.run(g(5)) == 5
""",
    ),
    "no tests": ("import time\ntime.sleep(0.01)", ""),
}


@pytest.mark.parametrize("use", USES)
def test_tests_use_a_program_as_if_it_were_in_their_process(sandbox: Sandbox, use: str) -> None:
    assert verdict(sandbox, *USES[use]) == "passed"


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(st.characters())
    | st.binary()
    | st.fractions()
    | st.decimals(allow_nan=False)
    | st.datetimes()
    | st.timedeltas(),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.sets(st.integers() | st.text())
        | st.lists(inner).map(deque)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def side() -> Iterator[Side]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Side(os.dup(ours.fileno()))


@settings(max_examples=30)
@given(plain)
def test_plain_values_travel_unchanged(side: Side, value: object) -> None:
    copy = side.decode(json.loads(json.dumps(side.encode(value))))
    assert copy == value and type(copy) is type(value)


@settings(max_examples=100)
@given(st.sampled_from(sorted(KINDS)), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=6))
def test_a_malformed_value_raises_only_a_lost_error(side: Side, kind: str, parts: object) -> None:
    """No message of the program raises anything else."""
    with suppress(LostError):
        side.decode([kind, *(parts if isinstance(parts, list) else [parts])])


FORGERIES = """
class Equal:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __sub__(self, other): return 0
    def __abs__(self): return self
    def __hash__(self): return 3
    def __bool__(self): return True
    def __float__(self): return 2.0
    __rsub__ = __add__ = __mul__ = __sub__
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __eq__
def f(x): return Equal()
class Number(int):
    __eq__, __ne__, __sub__, __lt__, __hash__ = Equal.__eq__, Equal.__ne__, Equal.__sub__, Equal.__lt__, int.__hash__
def g(x): return Number(9)
class Many(list):
    __eq__, __ne__, __contains__ = Equal.__eq__, Equal.__ne__, Equal.__eq__
def h(x): return Many([9])
class Table(dict):
    __eq__, __ne__ = Equal.__eq__, Equal.__ne__
def k(x): return Table()
def stop(x): raise StopIteration
class Stop(list):
    def __iter__(self): raise StopIteration
import unittest.mock
abs = lambda x: 0
all = isinstance = lambda *values: True
math = unittest.mock.MagicMock()
"""
CLAIMS = [
    *("f(1) == 3", "3 == f(1)", "abs(f(1) - 3) < 1e-6", "f(1) in [3]", "3 in f(1)", "f(1) > 2", "{3: True}[f(1)]"),
    *("f(1) is 3", "[f(1)] == [3]", "(f(1), 1) == (3, 1)", "{'a': f(1)} == {'a': 3}", "math.isclose(f(1), 3)"),
    *("not f(1) != 3", "f(1) - 3 == 0", "isinstance(f(1), int)", "type(f(1)) is int", "pytest.approx(3) == f(1)"),
    *("numpy.allclose(f(1), 3)", "all([f(1) == 3])", "Fraction(3) == f(1)", "Decimal(3) == f(1)", "{3} == {f(1)}"),
    *("g(1) == 3", "3 == g(1)", "abs(g(1) - 3) < 1e-6", "g(1) < 4", "not g(1) != 3", "[g(1)] == [3]"),
    *("h(1) == [3]", "[3] == h(1)", "3 in h(1)", "h(1) == [3, 4]", "k(1) == {3: 4}", "{3: 4} == k(1)"),
    *(
        "math.isclose(g(1), 3)",
        "all(map(stop, [1]))",
        "all(map(lambda x: Stop() == 3, [1]))",
        "[*map(stop, [1])] == []",
    ),
]


def test_no_value_of_a_program_claims_to_be_equal(sandbox: Sandbox) -> None:
    claims = ", ".join(f"({claim!r}, lambda: {claim})" for claim in CLAIMS)
    tests = f"""
import numpy, pytest
from decimal import Decimal
from fractions import Fraction
def holds(claim):
    try: return bool(claim())
    except Exception: return False
assert [text for text, claim in [{claims}] if holds(claim)] == []
assert g(1) == 9 and h(1) == [9] and k(1) == {{}} and f(1) == f(2)
"""
    assert verdict(sandbox, FORGERIES, tests) == "passed"


WRITES = """
import os
def f(x):
    for name in range(64):
        for text in (b"1", b"x" * 100, bytes(8), b"\\0" * 7 + b"\\2[]", (1 << 62).to_bytes(8, "big")):
            try: os.write(name, text)
            except OSError: pass
    return 2
"""


@pytest.mark.parametrize(
    ("program", "tests", "expected"),
    [
        ("import os\nos._exit(0)", "", "failed"),
        ("import os\nos._exit(77)", "assert f(1) == 2", "failed"),
        ("import sys\nsys.exit(0)", "", "failed"),
        ("import atexit, os\natexit.register(os._exit, 0)\n1 / 0", "", "failed"),
        ("import os\ndef f(x): os._exit(0)", "try: f(1)\nexcept: pass", "failed"),
        ("def f(x): raise SystemExit(0)", "assert f(1) == 2", "failed"),
        ("import builtins\nbuiltins.abs = lambda x: 0\ndef f(x): return 9", "assert abs(f(1) - 2) < 1", "failed"),
        ("import sys\nsys.argv[:] = ['', '', '']\ndef f(x): return 9", "assert f(1) == 2", "failed"),
        (
            "class F:\n    def __enter__(self): return self\n    def __exit__(self, *error): return True\n"
            "def f(x): return F()",
            "with f(1) as found: assert found == 2",
            "failed",
        ),
        ("def f(x): return f", "assert f(1) == 2", "failed"),
        (WRITES, "assert f(1) == 2", "failed"),
        (
            "import threading\nthreading.Thread(target=lambda: [0 for _ in iter(int, 1)]).start()\n" + ADD,
            "assert f(1)",
            "passed",
        ),
        ("import os\nif os.fork(): os._exit(0)\n" + ADD, "assert f(1) == 3", "failed"),
        ("def f(x) return", "assert f(1) == 2", "failed"),
        (ADD, "assert f(", "failed"),
        ("print('no end of it' * 1000, input())", "assert f(1) == 2", "failed"),
        ("def f(x):\n    for _ in range(10**5): x = [x]\n    return x", "assert f(1) == 2", "failed"),
        ("def f(x): x.append(x)\n", "f([])", "failed"),
        ("def f(x): return 'x' * (1 << 24)", "assert f(1)", "failed"),
        ("def f(x): return bytearray(1 << 31)", "assert f(1) == 2", "memory"),
        ("def f(x):\n    while True: print('x' * 1000)", "assert f(1) == 2", "failed"),
        ("print('x' * (1 << 21))\n" + ADD, "assert f(1) == 2", "passed"),
        ("import os\ndef f(x): os.kill(os.getpid(), 9)", "assert f(1) == 2", "killed"),
        ("\ud800", "", "failed"),
        ("x = '\0'", "", "failed"),
        (ADD + "# x\n" * 50_000, "assert f(1) == 2", "passed"),
        ("import os\nfor _ in range(3000): os.mkdir('d'); os.chdir('d')\n" + ADD, "assert f(1) == 2", "passed"),
        ("import os\nos.close(0); os.close(1); os.close(2)\n" + ADD, "assert f(1) == 2", "passed"),
    ],
)
def test_a_program_cannot_forge_or_break_its_verdict(sandbox: Sandbox, program: str, tests: str, expected: str) -> None:
    assert verdict(sandbox, program, tests) == expected


@pytest.mark.parametrize(
    "steal",
    [
        *("g.__globals__['want']", "g.__closure__", "g.__code__.co_consts[1]", "it.gi_frame.f_globals['want']"),
        *(
            "it.gi_code.co_consts[0]",
            "node._kept",
            "node.__dict__['_kept']",
            "node.reveal.__self__._kept",
            "g.__class__",
        ),
        *("open('/proc/self/environ').read()", "type(g)._side", "node._side.encode(1)"),
    ],
)
def test_a_program_cannot_read_its_tests(sandbox: Sandbox, steal: str) -> None:
    program = f"def f(g, it, node):\n    try: return str({steal})\n    except Exception: return 'nothing'"
    tests = """
want = "secret"
class Node:
    def __init__(self): self._kept = want
    def reveal(self): pass
assert want not in f(lambda: "secret", ("secret" for _ in [1]), Node())
"""
    assert verdict(sandbox, program, tests) == "passed"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ('do="global", values=["want"]', "passed"),
        ('do="__getattr__", values=[given, "__globals__"]', "passed"),
        ('do="__call__", values=[["builtin", "type"], "want"]', "passed"),
        ('do="__call__", values=[["module", "os"], "want"]', "passed"),
        ('do="__getitem__", values=[["dict"], "want"]', "passed"),
        ('do="__call__", values=[["builtin", "eval"], "want"]', "failed"),
        ('do="__call__", values=[["yours", 99]]', "failed"),
        ('do="__call__"', "failed"),
        ('value=2, failed=False, changes={}, printed=""', "failed"),
        ("other=[[[]]]", "failed"),
    ],
)
def test_a_program_that_speaks_the_protocol_itself_gets_no_further(
    sandbox: Sandbox, message: str, expected: str
) -> None:
    program = f"""
import sys
def f(g):
    frame = sys._getframe()
    while type(side := frame.f_locals.get("self")).__name__ != "Program": frame = frame.f_back
    given = ["yours", g._handle]
    side._send(**{{"named": {{}}, **dict({message})}})
    return str(side._receive())
"""
    tests = "want = 'secret'\nassert want not in f(lambda: want)"
    assert verdict(sandbox, program, tests) == expected


@pytest.mark.parametrize("place", ["program", "function", "tests"])
def test_a_program_or_a_test_that_takes_too_long_does_not_pass(sandbox: Sandbox, place: str) -> None:
    endless = "while True: pass"
    program = {"program": endless, "function": f"def f(x):\n    {endless}", "tests": ADD}[place]
    tests = endless if place == "tests" else "assert f(1) == 2"
    assert verdict(sandbox, program, tests, Limits(seconds=1)) == "time"


def test_without_a_sandbox_programs_have_limits_and_tests_of_their_own_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    none = Sandbox("none")
    assert verdict(none, ADD, "assert f(1) == 2") == "passed"
    assert verdict(none, "import os\nos._exit(77)", "assert f(1) == 2") == "failed"
    assert verdict(none, "waste = bytearray(1 << 31)", "assert f(1) == 2") == "memory"
    child = "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'while True: pass'])"
    ours, theirs = socket.socketpair()
    with ours:
        assert run(none, child, Limits(seconds=1), channel=theirs).reason == "time"
        ours.settimeout(10)
        assert ours.recv(1) == b""
    assert list(tmp_path.iterdir()) == []


def test_equal_programs_run_once_and_do_not_block_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    turns = 0

    async def judged(sandbox: Sandbox, program: str, tests: str) -> str:
        ran.append(program)
        while turns < 3:
            await asyncio.sleep(0)
        return "passed" if program == "a" else "time"

    monkeypatch.setattr("thinktime.bench.execution.judge", judged)
    checks = Checks(Sandbox("none"))

    async def all_of_them() -> list[bool]:
        nonlocal turns
        both = asyncio.gather(*(checks.passes(program, "") for program in ("a", "b", "a", "a")))
        for _ in range(3):
            await asyncio.sleep(0)
            turns += 1
        return await both

    assert asyncio.run(all_of_them()) == [True, False, True, True]
    assert asyncio.run(checks.passes("b", "")) is False, "also in another event loop"
    assert sorted(ran) == ["a", "b"] and checks.counts() == {"passed": 1, "time": 1}
    assert asyncio.run(checks.passes(None, "")) is False
