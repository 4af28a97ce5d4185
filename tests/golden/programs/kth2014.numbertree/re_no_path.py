h, path = input().split()
i = 1
for c in path:
    i = 2 * i + (c == "R")
print(2 ** (int(h) + 1) - i)
