for _ in range(int(input())):
    n = int(input())
    print(int(n**0.5 + 1e-9) + int(n ** (1 / 3) + 1e-9))
