"""Entry point of `python3 scripts/testnet`: see scripts/testnet.sh."""

import sys
from pathlib import Path

# The folder above instead of this one: the package is `testnet`, and its modules shadow none of Python's.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from testnet.main import main  # noqa: E402

sys.exit(main(sys.argv[1:]))
