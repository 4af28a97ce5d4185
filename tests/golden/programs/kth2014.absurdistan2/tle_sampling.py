import random
n = int(input())
while True:
    random.random()
