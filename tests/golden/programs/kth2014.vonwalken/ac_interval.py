import sys
from fractions import Fraction
words = sys.stdin.read().split()
d = Fraction(words[0])
low = high = s = Fraction(0)
high = Fraction(1)
scale = d.denominator
d, low, high, s = int(d * scale), 0, scale, 0
for k, c in enumerate(words[2:], 1):
    s += int(c) * scale
    low = max(low, s - k * d)
    high = min(high, s + scale - k * d)
print("possible" if low < high else "impossible")
