"""Encoders: a user's history in, K interest vectors for each target out."""
