"""Tests of the testnet: `python3 -B -m unittest discover -s scripts/testnet/tests -t scripts`."""
