n = int(input())
r = 1
for x in map(int, input().split()):
    r = r * x % 998244353
print(r)
