"""``python -m hyperdpo``, which ``accelerate launch -m hyperdpo`` needs."""

import sys

from hyperdpo.cli import main

sys.exit(main())
