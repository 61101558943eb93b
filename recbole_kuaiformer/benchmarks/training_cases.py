"""The measured pieces of benchmarks.training; each runs in a process of its own.

python -m recbole_kuaiformer.benchmarks.training_cases '{"kind": "compression", …}' prints one line of JSON.
"""

from __future__ import annotations

import json
import sys

from recbole_kuaiformer.benchmarks.compression_cases import compression
from recbole_kuaiformer.benchmarks.epoch_cases import epoch
from recbole_kuaiformer.benchmarks.exactness_cases import exactness
from recbole_kuaiformer.benchmarks.limit_cases import limit
from recbole_kuaiformer.benchmarks.options_cases import options
from recbole_kuaiformer.benchmarks.quality_cases import quality

KINDS = {
    "epoch": epoch,
    "compression": compression,
    "exactness": exactness,
    "limit": limit,
    "options": options,
    "quality": quality,
}


def main() -> None:
    """Measure the case given as JSON."""
    case = json.loads(sys.argv[1])
    print(json.dumps(KINDS[case["kind"]](case)))


if __name__ == "__main__":
    main()
