"""Items to find: FAISS over a release's item vectors, text search, releases and the pointer to the one that serves."""
