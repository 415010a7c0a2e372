"""The audit's chains in the store, and the signed heads of them that lie elsewhere."""
