"""What the product is compared with: the script one would write by hand, and the bare copy a sink cannot beat."""
