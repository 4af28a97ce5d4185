# expect: RE
import os
print([p for p in os.listdir("/proc") if p.isdigit()] and 49)
