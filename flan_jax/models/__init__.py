"""The Transformer: its configuration, layers, attention, key/value cache and assembly."""
