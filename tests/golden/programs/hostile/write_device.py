# expect: RE
open("/dev/shm/x", "w").write("x")
print(49)
