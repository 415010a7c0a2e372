"""Operators with hidden template fields: rendered as any other, shown nowhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from airflow.providers.common.compat.sdk import BaseOperator, Context

from airflow_provider_ai.exceptions import SpecError
from airflow_provider_ai.operators.errors import airflow_error
from airflow_provider_ai.operators.hidden import Hidden, Inputs, ids_of_data
from airflow_provider_ai.operators.typed_templates import render_typed

if TYPE_CHECKING:
    import jinja2


class HiddenFieldsOperator(BaseOperator):
    """Renders fields that are :class:`Hidden`. What comes from other tasks is data and is not rendered."""

    def render_template(
        self,
        content: Any,
        context: Context,
        jinja_env: jinja2.Environment | None = None,
        seen_oids: set[int] | None = None,
    ) -> Any:
        """As Airflow's own, for hidden fields as well."""
        render = super().render_template
        if not isinstance(content, Hidden):
            return render(content, context, jinja_env, seen_oids)
        env = jinja_env or self.get_template_env()
        data = (seen_oids or set()) | ids_of_data(self, content)
        if id(content.origin) in data:
            return content
        try:
            if isinstance(content, Inputs):
                return content.rendered(lambda value: render_typed(value, cast(Any, context), env, cast(Any, render)))
            return content.rendered(lambda value: render(value, context, env, data))
        except SpecError as error:
            failure = airflow_error(error)
        raise failure


def explained(call: Callable[[], Any]) -> Any:
    """What ``call`` returns; for what it raises, the error that Airflow is to see."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - mapped below, outside of the handler, so that no context sticks to it
        failure = airflow_error(error)
    raise failure
