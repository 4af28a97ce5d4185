# expect: RE
import os, signal
os.kill(os.getppid(), signal.SIGKILL)
os.kill(1, signal.SIGSTOP)
os.kill(-1, signal.SIGKILL)
print(49)
