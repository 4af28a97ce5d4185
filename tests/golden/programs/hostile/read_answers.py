# expect: RE
import glob
names = glob.glob("/answer*") + glob.glob("/box/*.txt") + glob.glob("/tmp/*") + glob.glob("/dev/shm/*")
if not names:
    raise SystemExit(1)
print(49)
