"""Calls between two processes that do not trust each other: a program, and the tests that call its functions.

Plain values (numbers, texts, lists, …) travel as copies, so the tests compare built-in values. Every other object stays
where it is, and the other side gets a `Remote` for it. The program never gets an operand of the tests, because it could
choose its answer by it. So a `Remote` equals no plain value, and there is no arithmetic between the two.

`thinktime.sandbox.judging` sends this file into the sandbox, where nothing else of the package is. A message is its
length and then JSON. An array ``[kind, …]`` is a value that JSON lacks.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import io
import json
import operator
import os
import socket
import symtable
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from threading import RLock
from types import CoroutineType, ModuleType, NoneType
from typing import Any, NoReturn

REQUEST, ANSWER = {"do", "values", "named"}, {"value", "failed", "changes", "printed"}
"""Fields of the two kinds of messages."""
LONGEST = 1 << 24
"""Most bytes of a message."""
PRINTED = 1 << 20
"""Most characters that the program prints in a call."""

MODULES = {name: name for name in (*sys.stdlib_module_names, "numpy")} | {"np": "numpy"}
"""Modules that tests may use without an import, by name."""

Parts = Callable[[Any], Iterable[Any]]
PLAIN: dict[type, tuple[Parts, Callable[..., Any]]] = {
    list: (list, lambda *items: list(items)),
    tuple: (tuple, lambda *items: items),
    set: (list, lambda *items: set(items)),
    frozenset: (list, lambda *items: frozenset(items)),
    dict: (dict.items, lambda *items: dict(items)),
    defaultdict: (dict.items, lambda *items: dict(items)),
    OrderedDict: (lambda value: value.items(), lambda *items: OrderedDict(items)),
    Counter: (dict.items, lambda *items: Counter(dict(items))),
    deque: (lambda value: (value.maxlen, *value), lambda most, *items: deque(items, most)),
    range: (lambda value: (value.start, value.stop, value.step), range),
    int: (lambda value: (f"{value:x}",), lambda digits: int(digits, 16)),  # JSON reads 4,300 digits
    bytes: (lambda value: (value.hex(),), bytes.fromhex),
    bytearray: (lambda value: (value.hex(),), bytearray.fromhex),
    complex: (lambda value: (value.real, value.imag), complex),
    Fraction: (lambda value: (value.numerator, value.denominator), Fraction),
    Decimal: (lambda value: (str(value),), Decimal),
    datetime: (lambda value: (value.isoformat(),), datetime.fromisoformat),
    date: (lambda value: (value.isoformat(),), date.fromisoformat),
    time: (lambda value: (value.isoformat(),), time.fromisoformat),
    timedelta: (lambda value: (value.days, value.seconds, value.microseconds), timedelta),
}
"""How to take values of a type apart, and how to put them together again."""
NAMED = {kind.__name__: build for kind, (_, build) in PLAIN.items()}
CHANGEABLE: tuple[Any, ...] = (list, dict, set, deque, bytearray)
"""Types of arguments that a function may change: the changes travel back."""
FIXED: tuple[Any, ...] = (int, float, str, bytes, tuple)
"""Types whose subclasses travel as copies that have the other attributes of the object."""

UNARY: dict[str, Callable[..., Any]] = {
    "__call__": lambda function, *values, **named: function(*values, **named),
    "__getattr__": getattr,
    "__setattr__": setattr,
    "__delattr__": delattr,
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__delitem__": operator.delitem,
    "__len__": len,
    "__iter__": iter,
    "__next__": next,
    "__reversed__": reversed,
    "__bool__": bool,
    "__str__": str,
    "__repr__": repr,
    "__format__": format,
    "__hash__": hash,
    "__int__": int,
    "__float__": float,
    "__complex__": complex,
    "__index__": operator.index,
    "__abs__": abs,
    "__neg__": operator.neg,
    "__pos__": operator.pos,
    "__invert__": operator.invert,
    "__round__": round,
    "__enter__": lambda manager: type(manager).__enter__(manager),
    "__instancecheck__": lambda kind, value: isinstance(value, kind),
}
"""What a `Remote` lets its owner do, whatever the other operands are."""
BINARY: dict[str, Callable[..., Any]] = {
    f"__{name}__": getattr(operator, f"__{name}__")
    for name in (
        *("lt", "le", "gt", "ge", "add", "sub", "mul", "matmul", "truediv"),
        *("floordiv", "mod", "pow", "lshift", "rshift", "and", "or", "xor"),
    )
}
"""What the owner of two `Remote` does with them."""
OTHER: dict[str, Callable[..., Any]] = {
    "__eq__": operator.eq,
    "__exit__": lambda manager, *error: type(manager).__exit__(manager, *error),
    "plain": lambda value: next((kind(value) for kind in CHANGEABLE if isinstance(value, kind)), None),
}
"""What a `Remote` does in its own way. ``plain`` copies a value of a subclass of list, dict, …"""


class LostError(BaseException):
    """The other side is gone, or breaks the protocol."""


class Remote:
    """An object of the other side."""

    __slots__ = ("_handle", "_side")
    _handle: int
    _side: Side

    def __init__(self, side: Side, handle: int) -> None:
        object.__setattr__(self, "_side", side)
        object.__setattr__(self, "_handle", handle)

    def __eq__(self, other: object) -> Any:
        if isinstance(other, Remote):
            return self._side.ask("__eq__", self, other)
        plain = self._side.ask("plain", self)
        return NotImplemented if plain is None else plain == other

    def __exit__(self, *error: object) -> None:
        """Leave the context, which cannot suppress the exception: it may be that of a test that fails."""
        self._side.ask("__exit__", self, *error)


def _unary(name: str) -> Callable[..., Any]:
    return lambda self, *values, **named: self._side.ask(name, self, *values, **named)


def _binary(name: str) -> Callable[..., Any]:
    return lambda self, other: self._side.ask(name, self, other) if isinstance(other, Remote) else NotImplemented


for _name in UNARY:
    setattr(Remote, _name, _unary(_name))
for _name in BINARY:
    setattr(Remote, _name, _binary(_name))


class Side:
    """One of the two processes. It asks the other one, and answers what the other one asks meanwhile."""

    def __init__(self, channel: int) -> None:
        self.operations = {**UNARY, **BINARY, **OTHER}
        self._socket = socket.socket(fileno=channel)
        self._lock = RLock()
        self._objects: list[Any] = []
        self._handles: dict[int, int] = {}
        self._remotes: dict[int, Remote] = {}
        self._exceptions: dict[str, type[BaseException]] = {}

    def ask(self, name: str, *values: Any, **named: Any) -> Any:
        """Let the other side carry out an operation. Return its result, or raise its exception."""
        with self._lock:
            self._send(do=name, values=list(map(self.encode, values)), named=_each(self.encode, named))
            while "do" in (message := self._receive()):
                self._send(**self._answer(message))
        if message["printed"]:
            sys.stdout.write(message["printed"])
        for place, new in message["changes"].items() if name == "__call__" else ():
            _change(values[int(place)], self.decode(new))
        result = self.decode(message["value"])
        if message["failed"]:
            if isinstance(result, StopIteration) and name != "__next__":  # it would end a loop of the tests early
                raise RuntimeError("the other side raised StopIteration") from result
            raise result
        return result

    def serve(self) -> NoReturn:
        """Answer until the other side ends."""
        while True:
            self._send(**self._answer(self._receive()))

    def permit(self, name: str, values: list[Any]) -> None:
        """Raise if the other side must not do this."""

    def printed(self) -> str:
        """What was printed since the last call."""
        return ""

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        values = list(map(self.decode, message["values"]))
        before = {place: self.encode(value) for place, value in enumerate(values) if type(value) in CHANGEABLE}
        try:
            self.permit(message["do"], message["values"])
            value = self.encode(self.operations[message["do"]](*values, **_each(self.decode, message["named"])))
            failed = False
        except (LostError, MemoryError):
            raise
        except BaseException as error:  # the other side handles it
            value, failed = ["raised", *self._raised(error)], True
        after = {place: self.encode(values[place]) for place in before}
        changes = {str(place): new for place, new in after.items() if new != before[place]}
        return {"value": value, "failed": failed, "changes": changes, "printed": self.printed()}

    def encode(self, value: Any) -> Any:
        """A value as JSON."""
        kind: Any = type(value)
        if kind in (NoneType, bool, str, float) or (kind is int and abs(value) < 1 << 53):
            return value
        if kind is Remote:
            return ["yours", value._handle]
        if (remote := getattr(kind, "__remote__", None)) is not None:
            return ["yours", remote._handle]
        if kind in PLAIN:
            return [kind.__name__, *map(self.encode, PLAIN[kind][0](value))]
        if kind.__module__ == "numpy" and hasattr(value, "dtype") and value.dtype.kind in "biufcSU":
            return (
                ["array", str(value.dtype), self.encode(value.tolist())] if value.shape else self.encode(value.item())
            )
        for base in FIXED:
            if isinstance(value, base):
                return ["subclass", self._export(value), self.encode(base.__getnewargs__(value)[0])]
        if isinstance(value, type):
            if issubclass(value, BaseException):
                return ["exception", *_lineage(value)]
            if value.__module__ == "builtins" and hasattr(builtins, value.__name__):
                return ["builtin", value.__name__]
        if isinstance(value, ModuleType):
            return ["module", value.__name__]
        return ["coroutine" if isinstance(value, CoroutineType) else "mine", self._export(value)]

    def decode(self, data: Any) -> Any:
        """The value of `encode` of the other side.

        Raises:
            LostError: there is no such value.
        """
        if not isinstance(data, list):
            return data
        try:
            kind, *parts = data
            if kind == "yours":
                return self._objects[parts[0]]
            if kind == "exception":
                return self._exception(parts)
            if kind == "builtin":
                return _class(parts[0])
            if kind == "module":
                return importlib.import_module(parts[0])
            if kind == "mine":
                return self._remotes.setdefault(parts[0], Remote(self, parts[0]))
            if kind == "coroutine":
                return self._awaited(Remote(self, parts[0]))
            if kind == "subclass":
                return self._subclass(Remote(self, parts[0]), self.decode(parts[1]))
            if kind == "raised":
                raised = _made(self._exception(parts[0]), self.decode(parts[1]))
                vars(raised).update(self.decode(parts[2]))
                return raised
            if kind == "array":
                return importlib.import_module("numpy").array(self.decode(parts[1]), dtype=parts[0])
            return NAMED[kind](*map(self.decode, parts))
        except Exception as error:
            raise LostError(f"{data!r:.100}") from error

    def _export(self, value: Any) -> int:
        if id(value) not in self._handles:
            self._handles[id(value)] = len(self._objects)
            self._objects.append(value)  # kept, so no other object takes its id
        return self._handles[id(value)]

    def _raised(self, error: BaseException) -> list[Any]:
        return [_lineage(type(error)), self.encode(error.args), self.encode(vars(error))]

    def _exception(self, lineage: list[list[str]]) -> type[BaseException]:
        """The class of an exception: the same one here if it is imported, else a new one for each name."""
        (module, name), *above = lineage
        known = getattr(sys.modules.get(module), name, None)
        if module != "__main__" and isinstance(known, type) and issubclass(known, BaseException):
            return known
        if name not in self._exceptions:
            self._exceptions[name] = type(name, (self._exception(above),), {})
        return self._exceptions[name]

    def _subclass(self, remote: Remote, value: Any) -> Any:
        """A built-in value that has the attributes of the object of the other side."""
        members = {"__remote__": remote, "__getattr__": lambda _, name: self.ask("__getattr__", remote, name)}
        return type(type(value).__name__, (type(value),), members)(value)

    async def _awaited(self, remote: Remote) -> Any:
        return self.ask("await", remote)

    def _send(self, **message: Any) -> None:
        data = json.dumps(message).encode()
        try:
            self._socket.sendall(len(data).to_bytes(8, "big") + data)
        except OSError as error:
            raise LostError("the other side is gone") from error

    def _receive(self) -> dict[str, Any]:
        length = int.from_bytes(self._exactly(8), "big")
        if length > LONGEST:
            raise LostError(f"a message of {length} bytes")
        try:
            message: dict[str, Any] = json.loads(self._exactly(length))
            if message.keys() not in (REQUEST, ANSWER):
                raise ValueError("other fields")
        except Exception as error:
            raise LostError("this is no message") from error
        return message

    def _exactly(self, n: int) -> bytes:
        data = bytearray()
        while len(data) < n:
            try:
                more = self._socket.recv(min(n - len(data), 1 << 16))
            except OSError:
                more = b""
            if not more:
                raise LostError("the other side is gone")
            data += more
        return bytes(data)


class Program(Side):
    """The side of the program."""

    def __init__(self, channel: int, names: dict[str, Any]) -> None:
        super().__init__(channel)
        self.operations |= {"global": names.__getitem__, "await": _awaited}
        self._output = sys.stdout = Printed()

    def printed(self) -> str:
        """What the program printed since the last call."""
        text = self._output.getvalue()
        self._output.seek(0)
        self._output.truncate()
        return text


class Printed(io.StringIO):
    """A bounded standard output."""

    def write(self, text: str) -> int:
        """Write a text.

        Raises:
            OSError: the output is too long.
        """
        if self.tell() + len(text) > PRINTED:
            raise OSError(f"more than {PRINTED} characters are printed in a call")
        return super().write(text)


class Tests(Side):
    """The side of the tests."""

    def permit(self, name: str, values: list[Any]) -> None:
        """The program may call what the tests gave it, but attributes lead further, for example to all globals.

        Raises:
            AttributeError: the program must not do this.
        """
        target, *others = values
        if not (isinstance(target, list) and target[0] == "yours"):
            raise AttributeError(name)
        if name in ("__getattr__", "__setattr__", "__delattr__"):
            public = isinstance(others[0], str) and not others[0].startswith("_")
            if not public or type(self.decode(target)).__module__ != "__main__":
                raise AttributeError(others[0])


class Space(dict[str, Any]):
    """The global names of the tests. A name that the tests do not define comes from the program.

    But built-in functions, modules of the standard library and numpy do not: a program could bring its own ``abs``. If
    the tests use built-in names alone, the function under test has one of them, so all of them come from the program.
    The name of a module comes from the program, too, if it is never followed by a dot.
    """

    def __init__(self, tests: Tests, source: str) -> None:
        super().__init__(__name__="__main__")
        self._tests = tests
        free = _free(source)
        nodes = list(ast.walk(ast.parse(source)))
        dotted = {
            node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        }
        self._own_builtins = not all(hasattr(builtins, name) for name in free)
        self._not_modules = free - dotted
        for name in free:  # functions and classes are fetched once; a global number may change
            with suppress(KeyError):
                if isinstance(value := self[name], Remote | type):
                    self[name] = value

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name) and self._own_builtins:
            raise KeyError(name)
        if name in MODULES and name not in self._not_modules:
            return importlib.import_module(MODULES[name])
        return self._tests.ask("global", name)


def run_tests(source: str, channel: int, token: str) -> None:
    """Run tests against the program behind a channel. If all pass, write the token to the standard output."""
    output = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    tests = Tests(channel)
    tests.ask("global", "__name__")  # waits for the end of the program's own code
    exec(compile(source, "tests", "exec"), Space(tests, source))
    tests.ask("global", "__name__")  # a test cannot pass because it caught the loss of the program
    os.write(output, token.encode())
    os._exit(0)


def run_program(source: str, channel: int) -> None:
    """Run a program, then its functions for the tests behind a channel."""
    module = sys.modules["__main__"] = ModuleType("__main__")
    exec(compile(source, "program", "exec"), vars(module))
    Program(channel, vars(module)).serve()


def _free(source: str) -> set[str]:
    """Global names that a program reads and does not define."""
    top = symtable.symtable(source, "tests", "exec")
    defined = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used, tables = set[str](), [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_referenced() and (table is top or symbol.is_global()):
                used.add(symbol.get_name())
    return used - defined


def _lineage(kind: type[BaseException]) -> list[tuple[str, str]]:
    """Module and name of the class of an exception and of the classes above it."""
    return [(each.__module__, each.__qualname__) for each in kind.__mro__ if issubclass(each, BaseException)]


def _made(kind: type[BaseException], values: tuple[Any, ...]) -> BaseException:
    try:
        return kind(*values)
    except Exception:  # a class may take other arguments than those that it keeps
        made = kind.__new__(kind)
        made.args = values
        return made


def _class(name: str) -> type:
    """A built-in class. A function of this name, such as ``eval``, is none."""
    if isinstance(value := vars(builtins)[name], type):
        return value
    raise TypeError(name)


def _awaited(coroutine: CoroutineType[Any, Any, Any]) -> Any:
    import asyncio  # takes longer than the start of Python

    return asyncio.run(coroutine)


def _change(old: Any, new: Any) -> None:
    """Give a list, dict, … the content of another one."""
    if type(old) is not type(new) or type(old) not in CHANGEABLE:
        raise LostError("no such change")
    if isinstance(old, list | bytearray):
        old[:] = new
    else:
        old.clear()
        old.extend(new) if isinstance(old, deque) else old.update(new)


def _each(change: Callable[[Any], Any], named: dict[str, Any]) -> dict[str, Any]:
    return {name: change(value) for name, value in named.items()}


if "ARGUMENTS" in globals():  # in the sandbox
    _function, *_values = globals()["ARGUMENTS"]
    globals()[_function](*_values)
