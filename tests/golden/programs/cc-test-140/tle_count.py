def good(x):
    r, c = round(x**0.5), round(x ** (1 / 3))
    return r * r == x or c**3 == x


for _ in range(int(input())):
    print(sum(good(x) for x in range(1, int(input()) + 1)))
