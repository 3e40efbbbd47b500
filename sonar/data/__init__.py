"""The data plane: manifests, decoding, corpora, shards, sampling and the mixed stream."""
