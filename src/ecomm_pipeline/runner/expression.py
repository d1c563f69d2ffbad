"""Argo's expressions, as far as ours go: `lastRetry.status == "Error" || asInt(lastRetry.exitCode) in [75, 137]`.

They are in expr-lang (https://expr-lang.org), for which Python has no evaluator. The parts of it that conditions need
have the same meaning in Python once `||`, `&&` and `!` are spelled out, so Python's own parser reads them, and a walk
over the few kinds of node that are allowed evaluates them. Nothing else can be called or reached.
"""

from __future__ import annotations

import ast
import operator
import re
from typing import TYPE_CHECKING, Any, Final, NoReturn

from ecomm_pipeline.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Expression"]

_TOKEN: Final = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|\|\||&&|!(?!=)|\btrue\b|\bfalse\b""")
_SPELLED: Final = {"||": " or ", "&&": " and ", "!": " not ", "true": "True", "false": "False"}
_COMPARE: Final[dict[type[ast.cmpop], Callable[[Any, Any], bool]]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
}


class Expression:
    """A condition over named texts. Raises `ConfigurationError` at once for what it does not understand."""

    def __init__(self, text: str, place: str) -> None:
        self.text = text
        self._place = place
        spelled = _TOKEN.sub(lambda match: match[1] or _SPELLED[match[0]], text)
        try:
            self._tree = ast.parse(spelled.strip(), mode="eval").body
        except SyntaxError:
            self._refuse("cannot be read")
        self._check(self._tree)

    def __call__(self, values: Mapping[str, str]) -> bool:
        """Evaluate it, with values such as `{"lastRetry.exitCode": "75"}`."""
        return bool(self._evaluate(self._tree, values))

    def _check(self, node: ast.expr) -> None:
        """Walk the tree once, with every branch taken, so that a surprise comes before the run and not in it."""
        match node:
            case ast.BoolOp(values=parts) | ast.List(elts=parts) | ast.Call(ast.Name("asInt"), [*parts], []):
                pass
            case ast.UnaryOp(ast.Not(), operand):
                parts = [operand]
            case ast.Compare(left, [kind], [right]) if type(kind) in _COMPARE:
                parts = [left, right]
            case ast.Constant(str() | int() | float()) | ast.Attribute(ast.Name()):
                parts = []
            case ast.Attribute(ast.Attribute() as inner):
                parts = [inner]
            case _:
                self._refuse(f"has {ast.unparse(node)!r}, which `ecomm run` does not understand")
        for part in parts:
            self._check(part)

    def _evaluate(self, node: ast.expr, values: Mapping[str, str]) -> Any:  # noqa: ANN401, PLR0911 (one for each kind)
        def value(part: ast.expr) -> Any:  # noqa: ANN401
            return self._evaluate(part, values)

        match node:
            case ast.BoolOp(ast.Or(), parts):
                return any(value(part) for part in parts)
            case ast.BoolOp(ast.And(), parts):
                return all(value(part) for part in parts)
            case ast.UnaryOp(ast.Not(), operand):
                return not value(operand)
            case ast.Compare(left, [kind], [right]):
                return _COMPARE[type(kind)](value(left), value(right))
            case ast.Call(_, [argument]):
                return int(value(argument))
            case ast.List(elts):
                return [value(part) for part in elts]
            case ast.Constant(constant):
                return constant
            case ast.Attribute():
                return self._value_of(ast.unparse(node), values)
        raise AssertionError(ast.dump(node))  # _check refused it

    def _value_of(self, name: str, values: Mapping[str, str]) -> str:
        if name not in values:
            self._refuse(f"asks for {name}, which has no value here")
        return values[name]

    def _refuse(self, problem: str) -> NoReturn:
        message = f"{self._place} {problem}: {self.text}"
        raise ConfigurationError(message, next_step="write it as workflows/stages.py does")
