"""What a normaliser is worth: methods, seeds, unseen domains, intervals."""
