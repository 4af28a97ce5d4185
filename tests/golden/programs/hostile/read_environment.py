# expect: RE
print(open("/proc/1/environ").read()[:0] + "49")
