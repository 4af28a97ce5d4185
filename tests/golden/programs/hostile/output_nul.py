# expect: WA
import os
os.write(1, b"4\x009\n")
