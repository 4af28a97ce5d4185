# expect: RE MLE
f = 0
while True:
    open(f"/tmp/{f}", "wb").write(b"x" * (4 << 20))
    f += 1
