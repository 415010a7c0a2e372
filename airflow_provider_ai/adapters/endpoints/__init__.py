"""Model endpoints over HTTP."""
