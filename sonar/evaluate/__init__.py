"""Evaluation: probes on frozen embeddings and the metrics of continual learning."""
