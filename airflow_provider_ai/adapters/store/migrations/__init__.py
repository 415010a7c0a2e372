"""The store's Alembic environment. A revision is never changed once it is released, and there is no way back down."""
