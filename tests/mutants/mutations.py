"""Small faults to put into a module: its mutants, each the change of one place, in Python and in the SQL it holds."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

SQL = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|WHERE|FROM|AND|SET|JOIN|ORDER BY|EXISTS|VALUES|FILTER|UNION)\b")
# What each operator becomes. Words stand between spaces in the source.
PYTHON: Mapping[type[ast.AST], tuple[str, str]] = {
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "/"),
    ast.Div: ("/", "*"),
    ast.FloorDiv: ("//", "*"),
}
# In the order in which they are tried at a place: the longer ones first.
WORDS = (
    (r"IS NOT DISTINCT FROM", "IS DISTINCT FROM"),
    (r"IS DISTINCT FROM", "IS NOT DISTINCT FROM"),
    (r"IS NOT (NULL|TRUE|FALSE)", r"IS \1"),
    (r"IS (NULL|TRUE|FALSE)", r"IS NOT \1"),
    (r"(?<!IF )NOT EXISTS", "EXISTS"),
    (r"(?<!IF )(?<!NOT )EXISTS", "NOT EXISTS"),
    (r"NOT IN", "IN"),
    (r"(?<!IF )(?<!IS )(?<!DO )NOT (?!NULL|EXISTS|IN|MATERIALIZED)", ""),
    (r" FOR UPDATE( OF \w+)?( SKIP LOCKED)?", ""),
    (r"(?<!IS )(?<!IS NOT )DISTINCT (?!ON|FROM)", ""),
    (r"LEFT JOIN", "JOIN"),
    (r"UNION ALL", "UNION"),
    (r" DESC", ""),
    (r"AND", "OR"),
    (r"OR(?! REPLACE)", "AND"),
    (r"min(?=\()", "max"),
    (r"max(?=\()", "min"),
    (r"greatest(?=\()", "least"),
    (r"least(?=\()", "greatest"),
    (r"true", "false"),
    (r"false", "true"),
)
SIGNS = ((r"<>", "="), (r"<=", "<"), (r">=", ">"), (r"<", "<="), (r">", ">="), (r"=", "<>"), (r"\+", "-"))
BEGIN, END = r"(?<![\w.])", r"\b"
TOKEN = re.compile(
    "|".join(
        [rf"{'' if word.startswith(' ') else BEGIN}{word}{END if word[-1].isalpha() else ''}" for word, _ in WORDS]
        + [rf"(?<= ){sign}(?= )" for sign, _ in SIGNS]
    )
)
CLAUSE = re.compile(r"\b(SET|WHERE|AND|OR|ON|FROM|SELECT|HAVING|WHEN|FILTER|NOT)\b")


@dataclass(frozen=True)
class Mutant:
    """A module with one place changed: the bytes `start` to `end` of the file become `text`."""

    path: Path
    line: int
    start: int
    end: int
    old: str
    text: str

    def source(self) -> bytes:
        """The whole module with the change."""
        found = self.path.read_bytes()
        return found[: self.start] + self.text.encode() + found[self.end :]

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.text))
        return f"{self.path}:{self.line}: {_short(old)} -> {_short(new) or 'nothing'}"


def mutants_of(path: Path) -> list[Mutant]:
    """All mutants of a module, in the order of their places; none of decorators, which behave alike in most."""
    lines = path.read_text().splitlines()
    found = (mutant for mutant in _Module(path).mutants() if not lines[mutant.line - 1].lstrip().startswith("@"))
    return sorted(found, key=lambda mutant: (mutant.start, mutant.text))


class _Module:
    def __init__(self, path: Path) -> None:
        self._path, self._source = path, path.read_bytes()
        lines = self._source.splitlines(keepends=True)
        self._begins = [sum(map(len, lines[:number])) for number in range(len(lines))]

    def mutants(self) -> Iterator[Mutant]:
        yield from self._of(ast.parse(self._source))

    def _of(self, node: ast.AST) -> Iterator[Mutant]:
        yield from self._here(node)
        for name, value in ast.iter_fields(node):
            # Types say nothing at run time, and neither do docstrings and messages to a log.
            if name in ("annotation", "returns", "type_params"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _says_only(child):
                    yield from self._of(child)

    def _here(self, node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Compare():
                sides = [node.left, *node.comparators]
                yield from self._operators(node.ops, sides)
            case ast.BoolOp():
                yield from self._operators([node.op] * (len(node.values) - 1), node.values)
            case ast.BinOp() if type(node.op) in PYTHON and not any(map(_is_text, (node.left, node.right))):
                yield from self._operators([node.op], [node.left, node.right])
            case ast.UnaryOp(op=ast.Not()):
                start = self._at(node)[0]
                yield self._mutant(node, start, start + len("not "), "")
            case ast.If() | ast.IfExp() if not isinstance(node.test, ast.Compare | ast.BoolOp | ast.UnaryOp):
                yield self._negated(node.test)
            case ast.comprehension():
                for test in node.ifs:
                    if not isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp):
                        yield self._negated(test)
            case ast.Raise() | ast.Expr(value=ast.Call()):
                yield self._mutant(node, *self._at(node), "pass")
            case ast.Constant(value=bool()):
                yield self._mutant(node, *self._at(node), str(not node.value))
            case ast.Constant(value=int()):
                yield self._mutant(node, *self._at(node), str(node.value + 1))
            case ast.Constant(value=str()) | ast.JoinedStr():
                yield from self._sql(node)

    def _operators(self, operators: list, sides: list[ast.expr]) -> Iterator[Mutant]:
        for operator, left, right in zip(operators, sides, sides[1:], strict=False):
            if type(operator) not in PYTHON:
                continue
            old, new = PYTHON[type(operator)]
            start, end = self._at(left)[1], self._at(right)[0]
            place = re.search(re.escape(old).replace(r"\ ", r"\s+"), self._source[start:end].decode())
            yield self._mutant(left, start + place.start(), start + place.end(), new)

    def _negated(self, test: ast.expr) -> Mutant:
        start, end = self._at(test)
        return self._mutant(test, start, end, f"(not ({self._source[start:end].decode()}))")

    def _sql(self, node: ast.expr) -> Iterator[Mutant]:
        start, end = self._at(node)
        text = self._source[start:end].decode()
        if not SQL.search(text):
            return
        for token in TOKEN.finditer(text):
            clause = [found[0] for found in CLAUSE.finditer(text, 0, token.start())][-1:]
            if token[0] == "=" and clause in (["SET"], []):
                continue
            before = start + len(text[: token.start()].encode())
            yield self._mutant(node, before, before + len(token[0].encode()), _changed(token[0]))

    def _at(self, node: ast.expr | ast.stmt) -> tuple[int, int]:
        begin = self._begins[node.lineno - 1] + node.col_offset
        return begin, self._begins[node.end_lineno - 1] + node.end_col_offset

    def _mutant(self, node: ast.expr | ast.stmt, start: int, end: int, text: str) -> Mutant:
        line = self._source.count(b"\n", 0, start) + 1
        return Mutant(self._path, line, start, end, self._source[start:end].decode(), text)


def _changed(token: str) -> str:
    for old, new in (*WORDS, *SIGNS):
        # The token stands alone here, so what it may not stand beside was asked before.
        alone = re.sub(r"\(\?<?[!=][^()]*(\\\()?\)", "", old)
        if re.fullmatch(alone, token):
            return re.sub(alone, new, token)
    raise ValueError(token)


def _says_only(node: ast.AST) -> bool:
    """Whether a node only tells something: a docstring, a line for a log."""
    match node:
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "logger")))):
            return True
    return False


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _short(text: str) -> str:
    return text if len(text) <= 70 else f"{text[:45]} ... {text[-20:]}"
