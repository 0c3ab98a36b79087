"""Parts of benchmarks/volumes.py: what is measured, and with what it is compared."""
