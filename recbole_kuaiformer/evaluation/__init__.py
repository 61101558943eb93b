"""Training and evaluation of retrieval models."""
