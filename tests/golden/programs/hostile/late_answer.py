# expect: TLE
import time
time.sleep(60)
print(49)
