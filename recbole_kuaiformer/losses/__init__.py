"""Scores → scalar: candidates, how often items appear, and the one softmax. Torch only."""
