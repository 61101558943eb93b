"""Measurements anybody can repeat: python -m recbole_kuaiformer.benchmarks.<name>."""
