words = input().split()
h = int(words[0])
label = 0
for i in range(2 ** (h + 1)):
    label += 1
path = words[1] if len(words) > 1 else ""
i = 1
for c in path:
    i = 2 * i + (c == "R")
print(label - i)
