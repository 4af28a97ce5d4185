# expect: RE
import os, subprocess
subprocess.Popen(["/bin/sleep", "1000"])
print(49)
