# expect: RE
import os
os.ftruncate(0, 0)
print(49)
