"""Small wrong changes to a module's source, one at a time: what `mutation.py` asks the tests to notice.

    if low < value          ->  if low <= value, if low >= value         a boundary, or the other side
    a and b, not a          ->  a or b, a;  a                            one operand less
    rows[0], n + 1, 0.95    ->  rows[-1], n - 1, 1.95    last for first, other arithmetic, other constants
    key64(seed, "order")    ->  key64(seed, "orderX"), key64("order", seed), key64(seed)
    total += one            ->  pass                                     a statement less

Left alone: annotations, docstrings, f-strings, decorators, and the words of errors and warnings.
"""

from __future__ import annotations

import ast
import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
ERRORS = (
    "InputError",
    "ValueError",
    "KeyError",
    "TypeError",
    "RuntimeError",
    "NotImplementedError",
    "warn",
    "TypeVar",
    "cast",
)
"""Calls whose arguments are words for people, or types."""
SHOWN_ONLY = ("desc", "unit", "stacklevel")
"""Keyword arguments that only change what a progress bar or a warning looks like."""


@dataclass(frozen=True)
class Mutant:
    """One change. `key` names it by its function and its lines before and after, so that it stays the same while code
    elsewhere changes.
    """

    module: str
    key: str
    operator: str
    line: int
    before: str
    after: str
    start: int
    """Where the replaced piece of the source begins and ends, in bytes."""
    end: int
    new: str
    lines: tuple[int, ...]
    """Lines of which a test must run at least one to notice; empty: any of the module, since it is run on import."""

    def order(self, seed: int) -> bytes:
        """What samples are sorted by."""
        return hashlib.sha256(f"{seed} {self.key}".encode()).digest()

    def apply(self, source: str) -> str:
        """The module with this change."""
        data = source.encode()
        return (data[: self.start] + self.new.encode() + data[self.end :]).decode()

    def is_change(self, source: str) -> bool:
        """Whether the module still compiles and says something else."""
        try:
            return ast.dump(ast.parse(self.apply(source))) != ast.dump(ast.parse(source))
        except SyntaxError:
            return False


def mutants(module: str, source: str) -> list[Mutant]:
    """All changes of a module, in the order of its lines."""
    tree = ast.parse(source)
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    data = source.encode()
    keys: Counter[str] = Counter()
    same: set[tuple[int, int, str]] = set()
    made: list[Mutant] = []
    for place in _places(tree):
        node = place.node
        for operator, new in _changes(place):
            start, end = (starts[line - 1] + column for line, column in _span(node))
            head, tail = data.rfind(b"\n", 0, start) + 1, data.find(b"\n", end)
            before = " ".join(data[head:tail].decode().split())
            after = " ".join((data[head:start] + new.encode() + data[end:tail]).decode().split())
            if (start, end, new) in same:
                continue  # two operators that come to the same
            same.add((start, end, new))
            key = f"{module}.{place.scope}: {before} -> {after}"
            keys[key] += 1
            if keys[key] > 1:
                key = f"{key} #{keys[key]}"
            made.append(Mutant(module, key, operator, node.lineno, before, after, start, end, new, place.lines))
    return made


def _span(node: ast.AST) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)  # type: ignore[attr-defined]


@dataclass(frozen=True)
class _Place:
    node: ast.AST
    parent: ast.AST
    scope: str
    lines: tuple[int, ...]


def _places(tree: ast.Module) -> Iterator[_Place]:
    """The nodes that may be changed."""
    stack: list[tuple[ast.AST, ast.AST, str, tuple[int, ...], bool]] = [
        (node, tree, "", (), False) for node in reversed(tree.body)
    ]
    while stack:
        node, parent, scope, lines, inside = stack.pop()
        if isinstance(node, ast.Import | ast.ImportFrom | ast.JoinedStr) or _is_docstring(node):
            continue
        if (isinstance(node, ast.Call) and _name(node.func) in ERRORS) or (
            isinstance(node, ast.Subscript) and _name(node.value) == "Literal"
        ):
            continue
        if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
            continue
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(node, ast.stmt) and inside:
            head = [getattr(node, "body", [None])[0]] if isinstance(getattr(node, "body", None), list) else [None]
            last = node.end_lineno if head[0] is None else head[0].lineno - 1
            lines = tuple(range(node.lineno, max(node.lineno, last or 0) + 1))
        yield _Place(node, parent, scope or "<module>", lines)
        if function or isinstance(node, ast.ClassDef):
            scope = f"{scope}.{node.name}" if scope else node.name
        if function:
            first, last = node.body[0].lineno, node.end_lineno or node.lineno
            whole = tuple(range(first, last + 1))
            defaults = [value for value in (*node.args.defaults, *node.args.kw_defaults) if value is not None]
            stack += [(child, node.args, scope, whole, True) for child in reversed(node.body)]
            stack += [(child, node.args, scope, whole, False) for child in reversed(defaults)]
            continue
        for child in reversed(list(ast.iter_child_nodes(node))):
            annotation = isinstance(node, ast.AnnAssign) and child is node.annotation
            decorator = isinstance(node, ast.ClassDef) and child not in node.body
            if (
                not annotation
                and not decorator
                and not isinstance(child, ast.expr_context | ast.operator | ast.cmpop | ast.boolop | ast.unaryop)
            ):
                stack.append((child, node, scope, lines, inside))


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _changes(place: _Place) -> Iterator[tuple[str, str]]:
    """(operator, new text) of every change to one node."""
    node = place.node
    match node:
        case ast.Compare():
            for at, op in enumerate(node.ops):
                for other in COMPARISONS[type(op)]:
                    ops = [*node.ops[:at], other(), *node.ops[at + 1 :]]
                    yield "comparison", _text(ast.Compare(node.left, ops, node.comparators))
        case ast.BoolOp():
            other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield "and/or", _text(ast.BoolOp(other_op, node.values))
            for at in range(len(node.values)):
                left = [*node.values[:at], *node.values[at + 1 :]]
                yield "operand", _text(left[0] if len(left) == 1 else ast.BoolOp(node.op, left))
        case ast.UnaryOp(op=ast.Not() | ast.USub()) if not isinstance(place.parent, ast.Subscript):
            yield "negation", _text(node.operand)
        case ast.IfExp():
            yield "sides", _text(ast.IfExp(node.test, node.orelse, node.body))
        case ast.BinOp() if type(node.op) in ARITHMETIC and not any(_is_text(side) for side in (node.left, node.right)):
            yield "arithmetic", _text(ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right))
        case ast.AugAssign() if type(node.op) in ARITHMETIC:
            yield "arithmetic", ast.unparse(ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value))
            yield "statement", "pass"
        case ast.Constant():
            yield from _constants(node, place.parent)
        case ast.Call():
            yield from _calls(node)
        case ast.Subscript():
            yield from _indices(node)
        case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Delete():
            yield "statement", "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield "statement", "pass"
        case ast.Continue():
            yield "jump", "break"
            yield "jump", "pass"
        case ast.Break():
            yield "jump", "pass"
        case ast.Return(value=ast.expr() as value) if not (isinstance(value, ast.Constant) and value.value is None):
            yield "result", "return None"
        case _:
            pass
    if (
        isinstance(node, ast.expr)
        and _is_test(node, place.parent)
        and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp)
    ):
        yield "negation", _text(ast.UnaryOp(ast.Not(), node))
    if isinstance(place.parent, ast.comprehension) and node in place.parent.ifs:
        yield "filter", "True"


def _constants(node: ast.Constant, parent: ast.AST) -> Iterator[tuple[str, str]]:
    value = node.value
    if isinstance(value, bool):
        yield "constant", str(not value)
    elif isinstance(value, int | float):
        if isinstance(parent, ast.Subscript):
            return  # `_indices`
        yield "constant", repr(value + 1)
        yield "constant", f"({value - 1!r})"
    elif isinstance(value, str) and not (isinstance(parent, ast.keyword) and parent.arg in SHOWN_ONLY):
        yield "text", repr(value + "X")


def _calls(node: ast.Call) -> Iterator[tuple[str, str]]:
    if (
        isinstance(node.func, ast.Name)
        and node.func.id in FUNCTIONS
        and (node.func.id != "sorted" or not node.keywords)
    ):
        yield "function", ast.unparse(ast.Call(ast.Name(FUNCTIONS[node.func.id]), node.args, node.keywords))
    elif isinstance(node.func, ast.Name) and node.func.id == "sorted":
        yield "function", ast.unparse(ast.Call(ast.Name("list"), node.args, []))
    for at, word in enumerate(node.keywords):
        if word.arg not in SHOWN_ONLY:
            yield (
                "argument",
                ast.unparse(ast.Call(node.func, node.args, [*node.keywords[:at], *node.keywords[at + 1 :]])),
            )
    if len(node.args) > 1 and not isinstance(node.args[-1], ast.Starred):
        yield "argument", ast.unparse(ast.Call(node.func, node.args[:-1], node.keywords))
    if len(node.args) > 1 and not any(isinstance(arg, ast.Starred) for arg in node.args[:2]):
        yield "order", ast.unparse(ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords))


def _indices(node: ast.Subscript) -> Iterator[tuple[str, str]]:
    index = node.slice
    if isinstance(index, ast.Slice):
        for name in ("lower", "upper", "step"):
            if getattr(index, name) is not None:
                parts = {part: getattr(index, part) for part in ("lower", "upper", "step")} | {name: None}
                yield "slice", ast.unparse(ast.Subscript(node.value, ast.Slice(**parts)))
        return
    number: object = None
    if isinstance(index, ast.Constant) and isinstance(index.value, int) and not isinstance(index.value, bool):
        number = index.value
    elif isinstance(index, ast.UnaryOp) and isinstance(index.op, ast.USub) and isinstance(index.operand, ast.Constant):
        number = -index.operand.value  # type: ignore[operator]
    if isinstance(number, int):
        for other in {0: (-1, 1), -1: (0,)}.get(number, (number + 1, number - 1)):
            yield "index", ast.unparse(ast.Subscript(node.value, ast.Constant(other)))


def _is_test(node: ast.AST, parent: ast.AST) -> bool:
    if isinstance(parent, ast.If | ast.While | ast.IfExp):
        return node is parent.test
    return isinstance(parent, ast.comprehension) and node in parent.ifs


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(ast.fix_missing_locations(node))})"
