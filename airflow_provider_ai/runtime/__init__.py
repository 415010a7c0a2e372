"""The patterns wired to their adapters; what the command line and the Airflow operators both call. No Airflow."""
