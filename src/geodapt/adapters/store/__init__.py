"""The adapters of a bank: stacked on the device, float32 masters, merged into the base."""
