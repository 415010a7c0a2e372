"""Task decorators: thin Airflow shells, as the operators are."""
