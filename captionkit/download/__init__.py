"""Fetching data sets from their makers' servers: resumed, checked, never half in place."""
