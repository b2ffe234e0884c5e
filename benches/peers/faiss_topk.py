"""faiss beside `tensor_topk_cpu`: a flat index of inner products over the same unit vectors.

faiss_topk.py THREADS VECTORS WIDTH QUERIES K SECONDS, prints queries per second.
"""

import sys
import time

import faiss
import numpy


def main() -> None:
    threads, vectors, width, queries, k, seconds = map(int, sys.argv[1:7])
    faiss.omp_set_num_threads(threads)
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
