words = input().split()
h = int(words[0])
i = 1
for c in words[1] if len(words) > 1 else "":
    i = 2 * i + (c == "R")
print(2 ** (h + 1) - i)
