"""From a catalog entry to a running engine: files, tokenizer, weights, precision, devices."""
