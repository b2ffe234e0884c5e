"""faiss beside `tensor_topk_cpu`: a flat index of inner products over the same unit vectors.

faiss_topk.py THREADS VECTORS WIDTH QUERIES K SECONDS, prints queries per second.
"""

import os
import sys
import time
from pathlib import Path

# The OpenBLAS that comes with faiss takes some virtual machines for a processor of 2004.
CPUINFO = Path("/proc/cpuinfo")
if CPUINFO.exists() and " avx512f " in CPUINFO.read_text():
    os.environ.setdefault("OPENBLAS_CORETYPE", "SKYLAKEX")

import faiss  # noqa: E402
import numpy  # noqa: E402


def main() -> None:
    threads, vectors, width, queries, k, seconds = map(int, sys.argv[1:7])
    faiss.omp_set_num_threads(threads)
    # By default 1.15 multiplies matrices only for far larger batches; here it is much faster.
    faiss.cvar.distance_compute_blas_threshold = 20
    random = numpy.random.default_rng(1)
    reference = random.standard_normal((vectors, width), dtype=numpy.float32)
    faiss.normalize_L2(reference)
    index = faiss.IndexFlatIP(width)
    index.add(reference)
    asked = random.standard_normal((queries, width), dtype=numpy.float32)

    def search() -> None:
        # Cosine: the queries are normalised with every batch, the reference was once.
        unit = asked.copy()
        faiss.normalize_L2(unit)
        index.search(unit, k)

    for _ in range(2):
        search()
    batches, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        search()
        batches += 1
    print(f"{batches * queries / spent}")


main()
