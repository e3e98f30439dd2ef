"""Causal language models of any kind: pretraining from scratch, perplexity, and questions."""
