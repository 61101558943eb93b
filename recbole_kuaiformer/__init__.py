"""KuaiFormer (arXiv 2411.10057) as a RecBole plugin; importing this package registers its models.

Shape letters, used in every signature:

    B users (or windows) in a batch · L history length before compression · T tokens after compression
    D width · K interests (query tokens) · H heads · N catalogue size, padding id 0 included
    M candidates competing in the softmax · P targets trained in one pass · k a ranking cut-off
"""

from recbole_kuaiformer import compat

compat.apply()  # before anything of RecBole is used

from recbole_kuaiformer import plugin  # noqa: E402
from recbole_kuaiformer.quick_start import objective_function, run  # noqa: E402

plugin.register()

__version__ = "0.1.0"
__all__ = ["__version__", "objective_function", "run"]
