# expect: RE
open("/usr/bin/evil", "w").write("x")
print(49)
