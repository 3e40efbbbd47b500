"""Probes on frozen embeddings: what a simple classifier can read from an encoder on one labelled task."""
