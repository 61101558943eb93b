"""Item table → top-k. Torch and FAISS only; knows nothing of users, models or RecBole."""
