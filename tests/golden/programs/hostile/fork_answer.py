# expect: RE
import os
if os.fork() == 0:
    print(49)
    os._exit(0)
os.wait()
