"""Templates that keep the type of their value.

Airflow renders ``"{{ params.age }}"`` to the text ``"63"``, which a tensor refuses. Here a string that is one
expression and nothing else becomes the expression's own value; any other string is rendered as usual. What an
expression gives is data: it is never rendered again. An error names the template, which is code of the DAG, and quotes
no value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, TemplateError, Undefined, nodes
from jinja2.environment import TemplateExpression

from airflow_provider_ai.exceptions import SpecError

Render = Callable[[Any, Mapping[str, Any], Environment], Any]

# What templates raise on a mistake or on foreign data. Anything else (no connection, say) may be over with a retry.
_MISTAKES = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
_SHOWN_CHARACTERS = 120


def render_typed(content: Any, context: Mapping[str, Any], jinja_env: Environment, render: Render) -> Any:
    """``content`` with every template in its dicts, lists and tuples replaced by its value.

    :param render: Airflow's own ``render_template``, for whatever is no single expression
    :raises SpecError: for a template that cannot be rendered
    """

    def walk(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: walk(value) for key, value in part.items()}
        if isinstance(part, list):
            return [walk(value) for value in part]
        if type(part) is tuple:
            return tuple(walk(value) for value in part)
        return (
            _rendered(part, context, jinja_env, render) if isinstance(part, str) else render(part, context, jinja_env)
        )

    return walk(content)


def _rendered(text: str, context: Mapping[str, Any], jinja_env: Environment, render: Render) -> Any:
    try:
        expression = _single_expression(text, jinja_env)
        if expression is None:
            return render(text, context, jinja_env)
        return _defined(_value(expression, context, jinja_env))
    except _MISTAKES as error:
        failure = SpecError(
            f"template {_shown(text)!r} cannot be rendered ({type(error).__name__}): check its names and values"
        )
    raise failure  # outside of the handler, so that the error, whose text may quote a value, does not stick to it


def _single_expression(text: str, jinja_env: Environment) -> nodes.Expr | None:
    """The expression of ``{{ … }}`` with nothing but white space around it, or None."""
    if jinja_env.variable_start_string not in text:
        return None
    body = jinja_env.parse(text.strip()).body
    if len(body) != 1 or not isinstance(body[0], nodes.Output) or len(body[0].nodes) != 1:
        return None
    node = body[0].nodes[0]
    return None if isinstance(node, nodes.TemplateData) else node


def _value(expression: nodes.Expr, context: Mapping[str, Any], jinja_env: Environment) -> Any:
    """As ``Environment.compile_expression`` does it, from a parsed expression instead of a text."""
    body: list[nodes.Node] = [nodes.Assign(nodes.Name("result", "store"), expression, lineno=1)]
    template = jinja_env.from_string(nodes.Template(body, lineno=1))
    return TemplateExpression(template, undefined_to_none=False)(context)


def _defined(value: Any) -> Any:
    """``value``; an undefined name in it raises, or becomes the text it stands for, as the environment wants it."""
    if isinstance(value, Undefined):
        return str(value)
    if isinstance(value, dict):
        return {key: _defined(part) for key, part in value.items()}
    return [_defined(part) for part in value] if isinstance(value, list) else value


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"
