"""The nearline door: claimed events → judged → merged with what is remembered. The caller owns the transaction."""
