"""PEFT's adapter files: what is read, checked and written."""
