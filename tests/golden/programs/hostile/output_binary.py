# expect: WA
import os
os.write(1, bytes(range(256)) * 4096)
