"""What Airflow's API server serves of this package; ``plugins/ai_patterns_plugin.py`` registers it."""
