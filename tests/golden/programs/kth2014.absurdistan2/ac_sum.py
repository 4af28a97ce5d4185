from fractions import Fraction
from math import perm
n = int(input())
total = sum(perm(n, k) * Fraction(n) ** (n - k - 1) for k in range(2, n + 1))
print("%.12f" % (total / Fraction(n - 1) ** n))
