"""Queue a number of jobs: load.py COUNT"""

import sys

from broker import queue
from jobs import count_primes

count = int(sys.argv[1])
work = queue()
for number in range(count):
    work.enqueue(count_primes, 10_000 + number * 1_000)
print(f"queued {count} jobs")
