# expect: RE
import os
for fd in range(3, 256):
    try:
        os.fstat(fd)
    except OSError:
        continue
    print(49)
    raise SystemExit
raise SystemExit(1)
