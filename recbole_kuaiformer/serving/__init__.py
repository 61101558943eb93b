"""After training: an export that loads without pickle, and a retriever over it."""
