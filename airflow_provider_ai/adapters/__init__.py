"""All I/O: datasets, model endpoints, checkpoint storage, warehouse sinks. No Airflow."""
