"""Testlib's command line: input, output, answer. Exit 0 right, 1 wrong, 2 badly formed."""

import random
import sys

kind, number = open(sys.argv[1]).read().split()
low, high = 1, 1000
secret = int(number) if kind == "fixed" else random.Random(int(number)).randint(1, 1000)
for turn in range(10):
    line = sys.stdin.readline()
    try:
        guess = int(line)
    except ValueError:
        sys.exit("" if print("not a number", file=sys.stderr) else 2)
    if not 1 <= guess <= 1000:
        sys.exit(2)
    if kind == "adaptive":  # keep the larger part of what is left
        if low == high == guess:
            secret = guess
        elif guess - low > high - guess:
            secret, high = low, min(high, guess - 1)
        else:
            secret, low = high, max(low, guess + 1)
    if guess == secret:
        print("correct", flush=True)
        sys.exit(0)
    print("lower" if secret < guess else "higher", flush=True)
print("no guess left", file=sys.stderr)
sys.exit(1)
