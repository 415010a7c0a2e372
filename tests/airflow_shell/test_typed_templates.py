"""Templates of a request's inputs in Airflow's own Jinja environments."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from datetime import date
from typing import Any

import jinja2
import pendulum
import pytest
from airflow.sdk import DAG, BaseOperator, task
from airflow.sdk.exceptions import AirflowException

from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.operators.typed_templates import render_typed

CANARY = "PHI-4711"


class Call(BaseOperator):
    """A task whose inputs keep their types, as the operator of a synchronous call does it."""

    template_fields = ("inputs",)

    def __init__(self, *, inputs: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inputs = inputs

    def render_template(self, content: Any, context: Any, jinja_env: Any = None, seen_oids: Any = None) -> Any:
        return render_typed(content, context, jinja_env or self.get_template_env(), super().render_template)

    def execute(self, context: Any) -> Any:
        return self.inputs


CONTEXT: dict[str, Any] = {
    "params": {"age": 63, "weight": 71.5, "smoker": False, "name": "Ada", "nothing": None, "dict": {"a": [1]}},
    "rows": [{"x": 1}, {"x": 2}],
    "visit": {"note": CANARY, "key": CANARY},
    "day": date(2026, 3, 1),
    "logical_date": pendulum.datetime(2026, 3, 1, tz="UTC"),
    "result": 7,
    "sneaky": "{{ visit.note }}",
}


def _rendered(content: Any, **dag_settings: Any) -> Any:
    with DAG("typed", schedule=None, user_defined_filters={"double": lambda value: 2 * value}, **dag_settings):
        call = Call(task_id="call", inputs=content)
    call.render_template_fields({**CONTEXT, "ti": None})
    return call.inputs


@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{{ params.age }}", 63),
        ("{{ params['weight'] }}", 71.5),
        ("{{ params.smoker }}", False),
        ("{{ params.nothing }}", None),
        ("{{ params.name }}", "Ada"),
        ("{{ params.dict }}", {"a": [1]}),
        ("{{ rows }}", [{"x": 1}, {"x": 2}]),
        ("{{ day }}", date(2026, 3, 1)),
        ("{{ params.age + 1 }}", 64),
        ("{{ params.age > 60 and not params.smoker }}", True),
        ("{{ {'age': params.age, 'x': [rows[1].x]} }}", {"age": 63, "x": [2]}),
        ("{{ result }}", 7),  # the name that the compiled expression uses itself
        ("{{ 5 }}", 5),
        ("{{ none }}", None),
        # filters: Jinja's, Airflow's, the DAG's own
        ("{{ missing | default(3) }}", 3),
        ("{{ rows | map(attribute='x') | sum }}", 3),
        ("{{ logical_date | ds }}", "2026-03-01"),
        ("{{ params.age | double }}", 126),
        # white space and comments around the one expression
        ("  {{ params.age }}\n", 63),
        ("{{-params.age-}}", 63),
        ("{# years #}{{ params.age }}", 63),
        ("{{ '}}' }}", "}}"),
    ],
)
def test_one_expression_keeps_the_type_of_its_value(content: str, expected: Any, native: bool) -> None:
    """A number stays a number, whatever kind of environment the DAG has."""
    value = _rendered(content, render_template_as_native_obj=native)
    assert value == expected
    assert type(value) is type(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{{ params.age }}{{ params.age }}", "6363"),
        ("{{ params.age }} years", "63 years"),
        ("age {{ params.age }}", "age 63"),
        ("{% if params.smoker %}yes{% else %}no{% endif %}", "no"),
        ("{{ params.age }}{% if params.smoker %}!{% endif %}", "63"),
        ("{% raw %}{{ params.age }}{% endraw %}", "{{ params.age }}"),
        ("plain", "plain"),
        ("  plain ", "  plain "),
        ("", ""),
        ("{ 'a': 1 }", "{ 'a': 1 }"),
    ],
)
def test_any_other_string_is_rendered_as_usual(content: str, expected: str) -> None:
    """Text around an expression makes it text."""
    assert _rendered(content) == expected


def test_templates_are_found_at_any_depth() -> None:
    """Keys and everything that is no string stay as they are."""
    content = {"a": ["{{ params.age }}", ("{{ params.weight }}", 1.5)], "{{ b }}": {"c": {"d": "{{ rows[0] }}"}}}
    assert _rendered([content, None, True]) == [
        {"a": [63, (71.5, 1.5)], "{{ b }}": {"c": {"d": {"x": 1}}}},
        None,
        True,
    ]


@pytest.mark.parametrize("content", ["{{ sneaky }}", ["{{ sneaky }}"], "{{ [sneaky] }}", "{{ {'a': sneaky} }}"])
def test_what_an_expression_gives_is_never_rendered_again(content: Any) -> None:
    """Data that looks like a template is data."""
    assert "{{ visit.note }}" in str(_rendered(content))


@pytest.mark.parametrize(
    "content",
    [
        "{{ missing }}",
        "{{ params.missing }}",
        "{{ missing.deeper }}",
        "{{ missing }} years",
        "{{ [missing] }}",
        "{{ {'a': {'b': missing}} }}",
        "{{ rows | map(attribute='y') | list }}",
        "{{ missing | upper }}",
        "{{ params.age | no_such_filter }}",
        "{{ params.age",
        "{{ }}",
        "{{ ''.__class__.__mro__ }}",  # the sandbox stays closed
    ],
)
def test_a_mistake_in_a_template_is_an_error_that_names_it(content: str) -> None:
    """An undefined name is no empty text, and no value either."""
    with pytest.raises(SpecError, match="cannot be rendered") as refused:
        _rendered([content])
    assert repr(content) in str(refused.value)


def test_a_dag_that_wants_undefined_names_to_be_empty_gets_that() -> None:
    """As Airflow's own rendering does it."""
    assert _rendered(["{{ missing }}", "{{ [missing] }}"], template_undefined=jinja2.Undefined) == ["", [""]]


@pytest.mark.parametrize(
    "content",
    [
        "{{ params[visit.key] }}",  # Jinja's message names the key
        "{{ params[visit.key] }} and more",
        "{{ logical_date.fromisoformat(visit.note) }}",  # Python's quotes the text
        "{{ 1 + visit.note }}",
        "{{ visit.note.no_such_attribute }}",
        "{{ rows[visit.note] }}",
        "{{ '%d' | format(visit.note) }}",
    ],
)
def test_no_error_quotes_a_value(content: str) -> None:
    """Neither its text nor anything that hangs on it."""
    with pytest.raises(SpecError) as refused:
        _rendered(content)
    error = refused.value
    assert (error.__cause__, error.__context__) == (None, None)
    assert CANARY not in "".join(traceback.format_exception(error))


def test_a_long_template_is_shown_in_part() -> None:
    """A message is a line, not a page."""
    with pytest.raises(SpecError) as refused:
        _rendered("{{ missing }}" + "x" * 10_000)
    assert len(str(refused.value)) < 300


def test_errors_of_airflow_pass_unchanged() -> None:
    """A supervisor that does not answer now may answer a retry."""

    def broken() -> None:
        raise AirflowException("no supervisor")

    with DAG("typed_airflow_error", schedule=None, user_defined_macros={"broken": broken}):
        call = Call(task_id="call", inputs="{{ broken() }}")
    with pytest.raises(AirflowException, match="no supervisor"):
        call.render_template_fields({})


def test_values_of_other_tasks_keep_their_types(run_dag: Callable[..., Any], xcom: Callable[..., Any]) -> None:
    """XCom by template and by reference, params of the run, in a task that runs."""
    with DAG("typed_xcom", schedule=None, params={"age": 63}) as dag:

        @task
        def visit() -> dict[str, Any]:
            return {"age": 71, "note": "{{ params.age }}", "rows": [1, 2.5]}

        read = visit()
        pulled = "{{ ti.xcom_pull(task_ids='visit') }}"
        call = Call(task_id="call", inputs={"pulled": pulled, "referred": read, "age": "{{ params.age }}"})
        read >> call
    run = run_dag(dag, run_after=pendulum.datetime(2026, 3, 1, tz="UTC"))
    assert run.state == "success"
    given = {"age": 71, "note": "{{ params.age }}", "rows": [1, 2.5]}
    assert xcom(run, "call") == {"pulled": given, "referred": given, "age": 63}
