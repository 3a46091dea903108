"""From a shop's own files to clean days: contract, mapping, readers, rules, quarantine, merging, expectations."""
