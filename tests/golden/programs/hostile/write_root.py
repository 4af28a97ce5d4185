# expect: RE
open("/evil", "w").write("x")
print(49)
