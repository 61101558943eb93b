"""RecBole adapters: a model is its Settings and the encoder they build; the rest is written once in base."""
