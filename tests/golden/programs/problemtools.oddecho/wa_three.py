import sys
words = sys.stdin.read().split()[1:]
for i in (0, 2, 4):
    print(words[i])
