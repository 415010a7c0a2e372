"""An Airflow connection → settings of an adapter. The only place that knows how connections are laid out."""
