# expect: MLE
a = "x"
while True:
    a += a
