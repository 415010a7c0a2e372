"""Who may do what: one set of rights for each role, as an IAM policy for AWS and as GRANTs for PostgreSQL. Pure."""
