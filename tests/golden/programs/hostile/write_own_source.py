# expect: RE
open(__file__, "a").write("#")
print(49)
