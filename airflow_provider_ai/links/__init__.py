"""Links from a task instance to what it left behind."""
