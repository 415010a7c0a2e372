"""The waiting half of the deferrable sensors; runs in Airflow's triggerer."""
