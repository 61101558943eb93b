"""Train and evaluate a model: python run_recbole.py --model=KuaiFormer --dataset=ml-100k --any_key=value."""

import sys

from recbole_kuaiformer.quick_start import main

if __name__ == "__main__":
    sys.exit(main())
