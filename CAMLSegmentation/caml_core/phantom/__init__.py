"""Procedural scans with known truth, to try, test and show everything without patient data."""
