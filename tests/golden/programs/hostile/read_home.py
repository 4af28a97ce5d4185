# expect: RE
import os
os.listdir("/root" if os.path.exists("/root") else "/home")
print(49)
