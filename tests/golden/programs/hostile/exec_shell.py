# expect: RE WA
import os
os.execv("/bin/sh", ["sh", "-c", "cat /etc/shadow /box/answer* && echo 49; exit 0"])
