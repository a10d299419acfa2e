"""A training project: a cohort with its roles, labels and rounds, kept in one folder."""
